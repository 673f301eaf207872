"""Reading YAML that people write."""

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except Exception as error:  # PyYAML lets KeyError, IndexError, AttributeError and others pass for odd tags
        raise ValueError(
            str(error) if isinstance(error, yaml.YAMLError | ValueError) else f"odd value or tag ({error!r})"
        ) from None
