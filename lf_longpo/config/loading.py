"""Reading settings: a YAML file, then `key=value` overrides; one line for each error."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lf_longpo.config.base import Config, fields_of, section_of
from lf_longpo.config.overrides import apply_overrides
from lf_longpo.config.shipped import resolve
from lf_longpo.config.yaml_text import parse_yaml
from lf_longpo.errors import UserError
from lf_longpo.text.halves import refuse_halves, texts_in

C = TypeVar("C", bound=Config)


def load_config(kind: type[C], path: str | Path | None, overrides: Sequence[str] = ()) -> C:
    """Reads a YAML file, applies `key=value` overrides (`longmab.rounds=8`) and checks the result.

    Without a path, only the overrides count.

    Raises:
        UserError: the file is missing or is not a YAML mapping, an override is malformed, or a key or value is wrong.
            One line for each error, with the file and the field.
    """
    data = read_settings(Path(path)) if path is not None else {}
    apply_overrides(data, overrides)
    try:
        config = kind.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(_explain(path or "settings", kind, fault) for fault in error.errors())) from None
    _check_texts(data, str(path or "settings"))
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, without checks of the keys.

    Raises:
        UserError: the file cannot be read or is not a YAML mapping.
    """
    try:
        data = parse_yaml(resolve(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold settings, one `key: value` per line")
    return data


def _check_texts(settings: dict[str, Any], source: str) -> None:
    """Refuses characters that YAML allows, but files, paths and requests do not.

    Raises:
        UserError: the message names the section.
    """
    refuse_halves(settings, source)
    for name, value in settings.items():
        if any("\0" in text for text in texts_in(value)):
            raise UserError(f"{source}: {name} holds a null character; remove it")


def _explain(path: str | Path, kind: type[Config], fault: Any) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = _nearest(kind, fault["loc"])
        return f"{path}: unknown key {field}" + (f"; did you mean {near}?" if near else "; remove it")
    if fault["type"] == "missing":
        return f"{path}: {field} is missing; set it"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path}: {field or 'settings'}: {message}" + (
        f", not {fault['input']!r}" if isinstance(fault["input"], str | int | float | bool) else ""
    )


def _nearest(kind: type[Config], location: tuple[Any, ...]) -> str | None:
    for part in location[:-1]:
        fields = fields_of(kind)
        section = section_of(fields[part]) if part in fields else None
        if section is None:
            return None
        kind = section
    return next(iter(difflib.get_close_matches(str(location[-1]), fields_of(kind))), None)
