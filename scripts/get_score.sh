#!/usr/bin/env bash
# LongReward, step 3 of 4: the scores. Variables: scripts/longreward_stage.sh.
exec bash "$(dirname "$0")/longreward_stage.sh" score "$@"
