"""The judge's prompts: one template for each thing it is asked, in each language."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

from lf_longpo.errors import UserError
from lf_longpo.text.language import Language
from lf_longpo.text.prompts import around_context, load_prompt

# What a judge is asked for, and the placeholders of the template.
STAGES = {
    "extract": ("context", "query"),
    "statements": ("query", "answer"),
    "helpfulness": ("query", "answer"),
    "logicality": ("query", "answer"),
    "faithfulness": ("context", "statement"),
    "completeness": ("query", "context", "answer"),
}
_LANGUAGES: tuple[Language, ...] = ("en", "zh")
_FULL = Path(__file__).parent / "prompts"
_SHIPPED = {"full": _FULL, "brief": _FULL / "brief"}


class JudgePrompts:
    """All templates, read and checked once.

    Args:
        name: `full`, `brief`, or a folder; its `<stage>_<language>.txt` files stand in for those of `full`.

    Raises:
        UserError: no such folder, none of the files in it, or a template with wrong placeholders.
    """

    def __init__(self, name: str) -> None:
        folder = _SHIPPED.get(name, Path(name))
        names = [f"{stage}_{language}.txt" for stage, language in product(STAGES, _LANGUAGES)]
        if not any((folder / name).is_file() for name in names):
            raise UserError(
                f"longreward.prompts: {name!r} is neither {' nor '.join(_SHIPPED)} nor a folder with at least one of "
                + ", ".join(names)
            )
        self._templates: dict[tuple[str, Language], str] = {}
        for (stage, fields), language in product(STAGES.items(), _LANGUAGES):
            own = folder / f"{stage}_{language}.txt"
            path = own if own.is_file() else _FULL / own.name
            self._templates[stage, language] = load_prompt(str(path), _FULL, fields, "longreward.prompts")

    @property
    def texts(self) -> list[str]:
        """All templates."""
        return list(self._templates.values())

    def render(self, stage: str, language: Language, **values: str) -> Callable[[str], str]:
        """The stage's prompt with all but its {context}, where it has one, settled."""
        return around_context(self._templates[stage, language], **values)
