#!/usr/bin/env bash
# LongMab-PO, step 1 of 3: the probes. Variables: scripts/longmab_stage.sh.
exec bash "$(dirname "$0")/longmab_stage.sh" probe "$@"
