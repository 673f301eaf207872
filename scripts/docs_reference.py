"""Writes the pages *Commands* and *Settings* of the docs site from the code. MkDocs loads this file as a hook.

The pages exist only in the built site, so they cannot differ from the parsers and the typed configuration.

    python scripts/docs_reference.py commands    # prints the page as Markdown
    python scripts/docs_reference.py settings
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any
from unittest import mock

import lf_longpo.config as configs
from lf_longpo.cli import main

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

# The type of the configuration that each command takes.
CONFIGURATIONS: dict[str, type[configs.Config]] = {
    "longpo generate": configs.GenerateConfig,
    "longpo score": configs.ScoreConfig,
    "longpo evaluate longqa": configs.LongQAConfig,
    "longpo evaluate longbench": configs.LongBenchConfig,
    "longpo evaluate longbench-chat": configs.LongBenchChatConfig,
    "longpo evaluate winrate": configs.WinRateConfig,
    "longpo evaluate judge": configs.EvaluateJudgeConfig,
    "longpo chat": configs.DocumentChatConfig,
    "longpo synthesize multihop": configs.MultiHopConfig,
    "longpo synthesize self-instruct": configs.SelfInstructConfig,
    "longpo synthesize needle": configs.NeedleConfig,
    "longpo synthesize mix": configs.MixConfig,
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_JSON_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}


def commands_page() -> str:
    """The page *Commands*, as Markdown: usage, description and arguments of every command."""
    sections = [_command_section(parser) for parser in leaf_parsers(make_parser())]
    return "\n".join(
        (
            "# Commands\n",
            "This page is written from the command line's parsers. `python -m lf_longpo` is the same as `longpo`.\n",
            "Settings follow the file as `key=value`, with dots for nested keys: `longmab.rounds=8`. A value is read as"
            " YAML. An unknown key is an error. The settings of each command are listed in [Settings](settings.md).\n",
            "Exit codes: 0 success; 1 too few results ([details](run-files.md#exit-codes)); 2 bad input or settings; "
            "130 interrupted.\n",
            *sections,
        )
    )


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line, taken when `main` is about to parse with it."""

    class Ready(Exception):
        """Carries the parser out of `main`."""

    def parse(self: argparse.ArgumentParser, *_: object) -> None:
        raise Ready(self)

    try:
        with mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse):
            main([])
    except Ready as ready:
        parser: argparse.ArgumentParser = ready.args[0]
        return parser
    raise AssertionError("main parses no arguments")


def leaf_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the commands that can be run, in the order of the help."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not any(group.required for group in groups):
        yield parser
    for group in groups:
        for command in group.choices.values():
            yield from leaf_parsers(command)


def settings_page() -> str:
    """The page *Settings*, as Markdown: type, default and meaning of every setting."""
    # A configuration that has several forms has a subclass for each.
    kinds = {command: kind.__subclasses__() or [kind] for command, kind in CONFIGURATIONS.items()}
    schemas = {command: [form.model_json_schema() for form in forms] for command, forms in kinds.items()}
    shared: dict[str, Any] = {}
    for schema in chain.from_iterable(schemas.values()):
        shared |= schema.get("$defs", {})
    users = _users([*chain.from_iterable(schemas.values()), *shared.values()])
    own = "".join(_command_settings(command, forms, shared) for command, forms in schemas.items())
    sections = "".join(_shared_settings(shared[name], shared, keys) for name, keys in users.items())
    return (
        "# Settings\n\n"
        "This page is written from the typed configuration. Each key has its type, its default and its meaning. The "
        "commands come first; then the sections that their settings share.\n\n"
        "Training recipes (`longpo train`, `longpo check`) are LLaMA-Factory's own; see "
        "[its documentation](https://llamafactory.readthedocs.io).\n\n" + own + sections
    )


def _command_section(parser: argparse.ArgumentParser) -> str:
    usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: "))
    usage = textwrap.fill(usage, 84, subsequent_indent="    ", break_on_hyphens=False)
    lines = [f"## {parser.prog}\n", f"{parser.description or ''}\n", f"```text\n{usage}\n```\n"]
    if parser.prog in CONFIGURATIONS:
        lines.append(f"Its settings: [{parser.prog}](settings.md#{_slug(parser.prog)}).\n")
    lines += ["| argument | meaning |", "| --- | --- |"]
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.dest != "help":
            names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            meaning = formatter._expand_help(action) if action.help else ""
            choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
            lines.append(f"| `{names}` | {_cell(meaning)}{choices} |")
    return "\n".join(lines) + "\n"


def _command_settings(command: str, forms: list[dict[str, Any]], shared: dict[str, Any]) -> str:
    """One section for a command, with a table for each form of its configuration."""
    return f"## {command}\n\n" + "".join(f"{_description(form)}\n\n{_table(form, shared)}\n" for form in forms)


def _shared_settings(schema: dict[str, Any], shared: dict[str, Any], keys: list[str]) -> str:
    title, used = _section_title(schema["title"]), ", ".join(f"`{key}`" for key in keys)
    return f"## {title}\n\n{_description(schema)} Used as {used}.\n\n{_table(schema, shared)}\n"


def _description(schema: dict[str, Any]) -> str:
    """The class's docstring, without the command that the heading names."""
    text = re.sub(r"^`longpo [^`]+`: ", "", schema.get("description", ""))
    return text[:1].upper() + text[1:]


def _table(schema: dict[str, Any], shared: dict[str, Any]) -> str:
    rows = ["| key | meaning |", "| --- | --- |"]
    for key, field in schema["properties"].items():
        use = "required" if key in schema.get("required", []) else _default(field, shared)
        sections = [_description(shared[name]) for name in _names(field)]
        meaning = _cell(field.get("description") or " ".join(sections))
        anchor = f"{{ #{schema['title']}.{key} }}"
        rows.append(f"| `{key}`{anchor} | *{_type(field)}; {use}*" + (f"<br>{meaning}" if meaning else "") + " |")
    return "\n".join(rows) + "\n"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        title = _section_title(_names(field)[0])
        return f"[{title}](#{_slug(title)})"
    if forms := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(_type(form) for form in forms)
    if values := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{value}`" for value in values)
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("format") == "path":
        return "path"
    bounds = [f"{sign} {field[bound]:g}" for bound, sign in _BOUNDS.items() if bound in field]
    return f"{_JSON_TYPES.get(field.get('type', ''), 'any')} {', '.join(bounds)}".strip()


def _default(field: dict[str, Any], shared: dict[str, Any]) -> str:
    default = field.get("default")
    if isinstance(default, dict):  # only what differs from the section's own defaults
        own = {key: value.get("default") for name in _names(field) for key, value in shared[name]["properties"].items()}
        default = {key: value for key, value in default.items() if value != own.get(key)}
    if default is None or default == {}:
        return "optional"
    return f"default `{json.dumps(default, ensure_ascii=False)}`"


def _users(schemas: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The keys under which each shared section is used, by the section's name."""
    users: dict[str, list[str]] = {}
    for schema in schemas:
        for key, field in schema.get("properties", {}).items():
            for name in _names(field):
                if key not in users.setdefault(name, []):
                    users[name].append(key)
    return users


def _names(field: dict[str, Any]) -> list[str]:
    """The shared sections that a field's type names."""
    return re.findall(r'"#/\$defs/(\w+)"', json.dumps(field))


def _section_title(name: str) -> str:
    """`GreedySamplingConfig` as `Greedy sampling settings`; `LongMab` and `LongReward` stay one word."""
    first, *rest = re.split(r"(?<!^)(?<!Long)(?=[A-Z])", name.removesuffix("Config"))
    return " ".join([first, *map(str.lower, rest), "settings"])


def _slug(title: str) -> str:
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", "&lt;").strip()


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds both pages to the site (an MkDocs event)."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/settings.md", content=settings_page()))
    return files


if __name__ == "__main__":
    print({"commands": commands_page, "settings": settings_page}[sys.argv[1]]())
