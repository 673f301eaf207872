"""Editors complete and explain the keys of the shipped recipes: each names a schema, and is valid by it."""

import json

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY

from lf_longpo.cli.settings_files import settings_commands
from lf_longpo.config.listing import json_schema
from lf_longpo.config.shipped import schema_of, shipped_recipes

SCHEMAS = REPOSITORY / "yaml/schema"
# LLaMA-Factory's recipes have a model under this key; their settings are its own.
OURS = {name: path for name, path in shipped_recipes().items() if "model_name_or_path" not in path.read_text()}


def test_the_schemas_are_those_of_the_settings():
    kinds = {f"{command.replace(' ', '-')}.json": kind for command, kind in settings_commands().items()}
    assert {path.name for path in SCHEMAS.iterdir()} == set(kinds)
    for name, kind in kinds.items():
        written = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
        assert written == json_schema(kind), f"{name} is out of date: run scripts/schemas.sh"


@pytest.mark.parametrize("name", OURS)
def test_a_recipe_is_valid_by_the_schema_that_it_names(name):
    schema = schema_of(OURS[name])
    assert schema is not None
    jsonschema.validate(
        yaml.safe_load(OURS[name].read_text(encoding="utf-8")), json.loads((OURS[name].parent / schema).read_text())
    )
