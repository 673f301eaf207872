"""The prompts of one task: one template per stage and language."""

from collections.abc import Callable, Collection, Mapping
from itertools import product
from pathlib import Path

from lf_longpo.errors import UserError
from lf_longpo.text.language import Language
from lf_longpo.text.prompts import around_context, load_prompt

_LANGUAGES: tuple[Language, ...] = ("en", "zh")


class PromptSet:
    """The templates of a task, read and checked once.

    Args:
        stages: the placeholders of each stage's template.
        shipped: the folder of the templates in this package.
        own: a folder with `<stage>_<language>.txt` files that replace the shipped templates.
        setting: the configuration field with the path `own`, for errors.

    Raises:
        UserError: `own` holds none of the files, or a template has wrong placeholders.
    """

    def __init__(self, stages: Mapping[str, Collection[str]], shipped: Path, own: Path, setting: str) -> None:
        names = [f"{stage}_{language}.txt" for stage, language in product(stages, _LANGUAGES)]
        if not any((own / name).is_file() for name in names):
            raise UserError(f"{setting}: {own} must be a folder with at least one of {', '.join(names)}")
        self._templates: dict[tuple[str, Language], str] = {}
        for (stage, fields), language in product(stages.items(), _LANGUAGES):
            path = own / f"{stage}_{language}.txt"
            path = path if path.is_file() else shipped / path.name
            self._templates[stage, language] = load_prompt(str(path), shipped, fields, setting)

    @property
    def texts(self) -> list[str]:
        """The texts of all templates."""
        return list(self._templates.values())

    def text(self, stage: str, language: Language) -> str:
        """The template of a stage."""
        return self._templates[stage, language]

    def render(self, stage: str, language: Language, **values: str) -> Callable[[str], str]:
        """Fills all placeholders of a stage's template except {context}; see `around_context`."""
        return around_context(self._templates[stage, language], **values)
