#!/usr/bin/env bash
# LongReward, step 2 of 4: what each chunk of a context says about the query. Variables: scripts/longreward_stage.sh.
exec bash "$(dirname "$0")/longreward_stage.sh" extract "$@"
