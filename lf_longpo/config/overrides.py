"""`key=value` arguments of the command line: one grammar for our own settings and for LLaMA-Factory's recipes."""

from collections.abc import Sequence
from typing import Any

from lf_longpo.config.yaml_text import parse_yaml
from lf_longpo.errors import UserError


def parse_override(text: str) -> tuple[str, Any]:
    """The key and the value of `key=value`. The value is read as YAML: `8`, `1e-5`, `true`, `null`, `[a, b]`, `text`.

    Raises:
        UserError: the text does not have this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key or key.startswith("-"):
        raise UserError(f"override {text!r} must have the form key=value, as in longmab.rounds=8 or learning_rate=5e-6")
    try:
        return key, parse_yaml(value)
    except ValueError:
        raise UserError(f"override {text!r}: {value!r} is not a YAML value; quote it") from None


def apply_overrides(settings: dict[str, Any], overrides: Sequence[str]) -> None:
    """Sets `key=value` in nested settings, in place. A dot in the key names a section: `longmab.rounds=8`.

    A section that does not exist, or is empty (null), is created.

    Raises:
        UserError: an override does not have the form key=value, or its section holds a value.
    """
    for override in overrides:
        key, value = parse_override(override)
        section = settings
        *parents, last = key.split(".")
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise UserError(f"override {override!r}: {parent} holds a value, not keys; remove the dot after it")
        section[last] = value
