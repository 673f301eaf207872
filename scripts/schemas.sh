#!/usr/bin/env bash
# Writes the JSON Schemas in yaml/schema again, after the settings of a command have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
mkdir -p yaml/schema
"$python" - <<'PYTHON'
import json
from pathlib import Path

from lf_longpo.cli.settings_files import settings_commands
from lf_longpo.config.listing import json_schema

for command, kind in settings_commands().items():
    schema = json.dumps(json_schema(kind), indent=1, ensure_ascii=False)
    Path("yaml/schema", f"{command.replace(' ', '-')}.json").write_text(schema + "\n", encoding="utf-8")
PYTHON
