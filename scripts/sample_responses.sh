#!/usr/bin/env bash
# LongReward, step 1 of 4: the policy's responses. Variables: scripts/longreward_stage.sh.
exec bash "$(dirname "$0")/longreward_stage.sh" sample "$@"
