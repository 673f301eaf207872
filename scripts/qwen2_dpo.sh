#!/usr/bin/env bash
# LongMab-PO's DPO with yaml/qwen2_dpo.yaml. Variables: scripts/train.sh.
exec bash "$(dirname "$0")/train.sh" qwen2_dpo "$@"
