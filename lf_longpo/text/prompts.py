"""Prompt templates: text files with {placeholders}, filled in one pass.

One pass over the template means that a context which happens to contain a placeholder or a brace changes nothing.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path

from lf_longpo.errors import UserError

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
QA_PROMPTS = Path(__file__).parent / "prompts"
QA_FIELDS = ("context", "question")


def load_prompt(name: str, directory: Path, fields: Collection[str], setting: str) -> str:
    """The text of a prompt template.

    Args:
        name: a template shipped in `directory` (without .txt), or the path of a text file.
        directory: where the shipped templates are.
        fields: the placeholders that the template must hold, each at least once, and no others.
        setting: the configuration field that `name` came from, for the error.

    Raises:
        UserError: no such template, or its placeholders are not `fields`.
    """
    shipped = directory / f"{name}.txt"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in directory.glob("*.txt")))
        raise UserError(f"{setting}: no prompt {name!r}; use one of {names}, or the path of a text file")
    try:
        template = path.read_text(encoding="utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{setting}: {path} is not UTF-8 ({error.reason}); convert the file") from None
    found = set(_PLACEHOLDER.findall(template))
    if found != set(fields):
        wanted = ", ".join(f"{{{field}}}" for field in fields)
        raise UserError(f"{setting}: {path} must hold the placeholders {wanted}, found {sorted(found) or 'none'}")
    return template


def fill(template: str, **values: str) -> str:
    """`template` with each {name} replaced by its value; values are not looked at again."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def around_context(template: str, **values: str) -> Callable[[str], str]:
    """`template` with all but its {context} settled: a function that puts a context, whole or cut, into it."""
    return lambda context: fill(template, context=context, **values)
