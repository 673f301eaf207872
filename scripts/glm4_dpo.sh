#!/usr/bin/env bash
# LongMab-PO's DPO with yaml/glm4_dpo.yaml. Variables: scripts/train.sh.
exec bash "$(dirname "$0")/train.sh" glm4_dpo "$@"
