"""The judge's prompt templates by stage."""

from pathlib import Path

from lf_longpo.config import ChatConfig, JudgingConfig
from lf_longpo.errors import UserError
from lf_longpo.judging.verdict_requests import rates_by_expectation
from lf_longpo.models.embedded import is_embedded
from lf_longpo.text.prompt_set import PromptSet

# The stages of judging, and the placeholders of their templates.
STAGES: dict[str, tuple[str, ...]] = {
    "extract": ("context", "query"),
    "statements": ("query", "answer"),
    "helpfulness": ("query", "answer"),
    "logicality": ("query", "answer"),
    "faithfulness": ("context", "statement"),
    "completeness": ("query", "context", "answer"),
}
# Replaces `faithfulness` where a call checks several statements. Its texts are no part of other runs' digests.
SEVERAL = "faithfulness_several"
FIELDS: dict[str, tuple[str, ...]] = STAGES | {SEVERAL: ("context", "statements")}
"""The placeholders of all templates."""
_FULL = Path(__file__).parent / "prompts"
_SHIPPED = {"full": _FULL, "brief": _FULL / "brief"}


def prompts_for(config: JudgingConfig, judge: ChatConfig) -> PromptSet:
    """The judge's prompts: those that are set; by default `brief` for the embedded model and `full` for others.

    Raises:
        UserError: a folder or a template cannot be used; or several statements a call are set, and this judge's
            verdicts are expected values.
    """
    if config.statements_per_call > 1 and rates_by_expectation(config, judge):
        raise UserError(
            "longreward.statements_per_call above 1 needs verdicts that the judge writes, and rating: expected reads "
            "token probabilities; set longreward.statements_per_call: 1 or longreward.rating: parsed"
        )
    name = config.prompts or ("brief" if is_embedded(judge.model) else "full")
    stages = FIELDS if config.statements_per_call > 1 else STAGES
    return PromptSet(stages, _FULL, _SHIPPED.get(name, Path(name)), "longreward.prompts")
