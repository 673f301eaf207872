#!/usr/bin/env bash
# LongMab-PO, step 2 of 3: the rollouts. Variables: scripts/longmab_stage.sh.
exec bash "$(dirname "$0")/longmab_stage.sh" rollout "$@"
