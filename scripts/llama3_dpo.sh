#!/usr/bin/env bash
# LongMab-PO's DPO with yaml/llama3_dpo.yaml. Variables: scripts/train.sh.
exec bash "$(dirname "$0")/train.sh" llama3_dpo "$@"
