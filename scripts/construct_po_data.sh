#!/usr/bin/env bash
# LongMab-PO, step 3 of 3: the preference pairs, registered. Variables: scripts/longmab_stage.sh.
exec bash "$(dirname "$0")/longmab_stage.sh" pairs "$@"
