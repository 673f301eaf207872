"""The listing of all settings is a configuration file: what it says are the defaults."""

import json

import pytest
import yaml

import lf_longpo.config as configs
from lf_longpo.config.listing import commented_yaml, json_schema

KINDS = [kind for name in configs.__all__ if isinstance(kind := getattr(configs, name), type) and name != "Config"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_listing_holds_all_settings_and_their_defaults(kind):
    text = commented_yaml(kind)
    listed = yaml.safe_load(text) or {}
    preset = {name for values in kind.presets.values() for name in values}
    for name, field in kind.model_fields.items():
        assert f"{name}:" in text
        if field.is_required():
            assert name not in listed
        elif name in preset:  # a value would have precedence over the preset's
            assert f"# {name}: {json.dumps(field.default)}  # the preset sets it" in text and name not in listed
        elif isinstance(field.default, configs.Config):
            defaults = field.default.model_dump(mode="json")
            assert all(defaults[key] == value for key, value in listed[name].items())
        elif name in listed or field.default is not None:
            assert listed[name] == json.loads(json.dumps(field.default, default=str))


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_explains_every_setting(kind):
    schema = json_schema(kind)
    if len(kind.variants()) > 1:
        assert len(schema["oneOf" if "oneOf" in schema else "anyOf"]) == len(kind.variants())
        return
    assert set(schema["properties"]) == set(kind.model_fields)
    assert not schema["additionalProperties"]
    described = {name for name, entry in schema["properties"].items() if entry.get("description")}
    assert described == {name for name, field in kind.model_fields.items() if field.description}


def test_a_section_with_defaults_needs_none_of_its_keys():
    schema = json_schema(configs.LongBenchConfig)
    judge = schema["properties"]["judging"]["$ref"].rpartition("/")[2]
    assert "required" not in schema["$defs"][judge]
    model = schema["properties"]["model"]["$ref"].rpartition("/")[2]
    assert "model" in schema["$defs"][model]["required"]
