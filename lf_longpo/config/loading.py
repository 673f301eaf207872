"""Reading a configuration: one YAML file, `key=value` overrides behind it, one clear line for each fault."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from lf_longpo.config.base import Config
from lf_longpo.config.yaml_text import parse_yaml
from lf_longpo.errors import UserError
from lf_longpo.text.halves import refuse_halves, texts_in

C = TypeVar("C", bound=Config)


def load_config(kind: type[C], path: str | Path | None, overrides: Sequence[str] = ()) -> C:
    """Reads a YAML file, applies `key=value` overrides (dots go down: `longmab.rounds=8`) and checks the result.

    Without a path the overrides are all there is.

    Raises:
        UserError: the file is missing or no YAML mapping, an override is malformed, or a key or value is wrong; one
            line for each fault, naming the file and the field.
    """
    data = read_settings(Path(path)) if path is not None else {}
    for override in overrides:
        _apply(data, override)
    try:
        config = kind.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(_explain(path or "settings", kind, fault) for fault in error.errors())) from None
    _check_texts(data, str(path or "settings"))
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, unchecked.

    Raises:
        UserError: the file cannot be read, or is no YAML mapping.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # also where it is not UTF-8
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold keys and values")
    return data


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} must have the form key=value, as in longmab.rounds=8")
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise UserError(f"override {override!r}: {parent} holds a value, not keys")
    try:
        data[last] = parse_yaml(value)
    except ValueError:
        raise UserError(f"override {override!r}: {value!r} is not a YAML value; quote it") from None


def _check_texts(settings: dict[str, Any], place: str) -> None:
    """Refuses what YAML can spell and no file, path or request can hold.

    Raises:
        UserError: it names the section.
    """
    refuse_halves(settings, place)
    for name, value in settings.items():
        if any("\0" in text for text in texts_in(value)):
            raise UserError(f"{place}: {name} holds a null character; remove it")


def _explain(path: str | Path, kind: type[Config], fault: Any) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = _nearest(kind, fault["loc"])
        return f"{path}: unknown key {field}" + (f"; did you mean {near}?" if near else "")
    if fault["type"] == "missing":
        return f"{path}: {field} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path}: {field or 'the configuration'}: {message}" + (
        f", not {fault['input']!r}" if isinstance(fault["input"], str | int | float | bool) else ""
    )


def _nearest(kind: type[Config], location: tuple[Any, ...]) -> str | None:
    for part in location[:-1]:
        fields = _fields(kind)
        annotation = fields[part].annotation if part in fields else None
        section = next((kind for kind in get_args(annotation) or (annotation,) if isinstance(kind, type)), None)
        if section is None or not issubclass(section, Config):
            return None
        kind = section
    return next(iter(difflib.get_close_matches(str(location[-1]), _fields(kind))), None)


def _fields(kind: type[Config]) -> dict[str, FieldInfo]:
    return {name: field for variant in kind.variants() for name, field in variant.model_fields.items()}
