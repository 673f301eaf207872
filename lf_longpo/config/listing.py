"""All settings of a command: as commented YAML to start from, and as JSON Schema for editors."""

import json
import textwrap
from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from lf_longpo.config.base import Config, section_of

_WIDTH = 116


def commented_yaml(kind: type[Config]) -> str:
    """Every setting with its documentation and its default. Sections and settings without a default are comments."""
    return "\n".join(_lines(kind)) + "\n"


def json_schema(kind: type[Config]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the files that a command takes.

    A section that has defaults needs none of its keys, whatever the class of the section requires.
    """
    union: Any = reduce(or_, kind.variants())
    schema = TypeAdapter(union).json_schema()
    sections = schema.get("$defs", {})
    for owner in (schema, *list(sections.values())):
        for entry in owner.get("properties", {}).values():
            if isinstance(entry.get("default"), dict):
                for reference in (choice for choice in (entry, *entry.get("anyOf", [])) if "$ref" in choice):
                    section = sections[reference["$ref"].rpartition("/")[2]]
                    reference["$ref"] += "WithDefaults"
                    name = reference["$ref"].rpartition("/")[2]
                    sections[name] = {key: value for key, value in section.items() if key != "required"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _lines(kind: type[Config], defaults: Config | None = None) -> Iterator[str]:
    """Args: the class, and the values that a section has where the file does not set it."""
    preset = {name for values in kind.presets.values() for name in values}
    for name, field in kind.model_fields.items():
        section = section_of(field)
        required = defaults is None and field.is_required()
        default = field.default if defaults is None else getattr(defaults, name)
        yield from _comment(field.description or (section.__doc__ if section else None))
        if section is None:
            line = _required(name, field) if required else f"{name}: {_plain(default)}"
            # A value in the file would have precedence over the preset's.
            yield f"# {line}  # the preset sets it" if name in preset else line
        elif isinstance(default, section):
            yield f"{name}:"
            yield from _indented(_lines(section, default))
        else:
            yield f"# {name}:  # {'required' if required else 'optional'}"
            yield from (f"# {line}" for line in _indented(_lines(section)))


def _required(name: str, field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"# {name}:  # required" + (f": {' | '.join(choices)}" if choices else "")


def _plain(value: Any) -> str:
    """JSON, which is YAML on one line."""
    return json.dumps(TypeAdapter(Any).dump_python(value, mode="json"), ensure_ascii=False)


def _comment(text: str | None) -> Iterator[str]:
    if text:
        yield from (f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH))


def _indented(lines: Iterator[str]) -> Iterator[str]:
    yield from (f"  {line}" for line in lines)
