#!/usr/bin/env bash
# LongReward, step 4 of 4: the preference pairs, registered. Variables: scripts/longreward_stage.sh.
exec bash "$(dirname "$0")/longreward_stage.sh" pairs "$@"
