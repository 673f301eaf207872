"""Prompt templates: text files with {placeholders}, filled in one pass.

Values are not searched for placeholders, so a context may contain braces or the text of a placeholder.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path

from lf_longpo.errors import UserError

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
QA_PROMPTS = Path(__file__).parent / "prompts"
QA_FIELDS = ("context", "question")


def load_prompt(name: str, directory: Path, fields: Collection[str], setting: str) -> str:
    """Reads a prompt template and checks its placeholders.

    Args:
        name: a template in `directory` (without .txt), or the path of a text file.
        directory: the folder of the shipped templates.
        fields: the placeholders that the template must hold, each at least once, and no others.
        setting: the configuration field with `name`, for the error.

    Raises:
        UserError: there is no such template, or its placeholders are not `fields`.
    """
    shipped = directory / f"{name}.txt"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in directory.glob("*.txt")))
        raise UserError(f"{setting}: no prompt {name!r}; use one of {names}, or the path of a text file")
    try:
        template = path.read_text(encoding="utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{setting}: {path} is not UTF-8 ({error.reason}); convert it") from None
    found = set(_PLACEHOLDER.findall(template))
    if found != set(fields):
        required = ", ".join(f"{{{field}}}" for field in fields)
        raise UserError(f"{setting}: {path} must hold the placeholders {required}, not {sorted(found) or 'none'}")
    return template


def fill(template: str, **values: str) -> str:
    """`template` with each {name} replaced by its value; placeholders in values stay."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def around_context(template: str, **values: str) -> Callable[[str], str]:
    """Fills all placeholders except {context}; the result is a function from a context to the prompt."""
    return lambda context: fill(template, context=context, **values)
