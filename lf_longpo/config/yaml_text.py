"""YAML as text and as values. YAML files and `key=value` overrides follow the same rules."""

import re
from collections.abc import Hashable
from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, by the rules of OmegaConf, with which LLaMA-Factory reads its recipes.

    These are PyYAML's rules with three changes: `1e-5` is a number, a date stays text, and a repeated key is an error.

    Raises:
        ValueError: it is not YAML. The message is one line and names the line of the text where it is known.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_in_one_line(error)) from None
    except Exception as error:  # PyYAML lets KeyError, IndexError, AttributeError and others pass for odd tags
        known = isinstance(error, yaml.YAMLError | ValueError)
        raise ValueError(" ".join(str(error).split()) if known else f"odd value or tag ({error!r})") from None


def dump_yaml(data: Any) -> str:
    """The YAML text that `parse_yaml` reads as `data`."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """See `parse_yaml`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} is repeated; remove one of the two", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as numbers."""


_FLOAT = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
_DATE = "tag:yaml.org,2002:timestamp"
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _in_one_line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    problem = " ".join(filter(None, (error.context, error.problem)))
    if "'\\t'" in problem:
        problem = "a tab cannot indent a line; use spaces"
    return f"line {mark.line + 1}: {problem}" if mark else problem
