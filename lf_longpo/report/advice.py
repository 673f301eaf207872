"""What to change where a run shows that its settings do not fit its models."""

from collections.abc import Mapping

from lf_longpo.config import GenerateConfig, LongMabGenerateConfig, ScoreConfig
from lf_longpo.longreward.scorer import DIMENSIONS

# From this share of a stage's replies on, there is advice.
_MANY = 0.1


def truncation_advice(config: GenerateConfig | ScoreConfig, calls: Mapping[str, tuple[int, int]]) -> list[str]:
    """What to do about stages in which many replies were cut off.

    Args:
        config: the run's.
        calls: by stage, all calls and those with a reply that was cut off.
    """
    told = []
    for stage, setting in _limits(config).items():
        made, truncated = calls.get(stage, (0, 0))
        if truncated > _MANY * made:
            words = f"{stage}: {truncated:,} of {made:,} replies were cut off at their most tokens."
            told.append(f"{words} Raise {setting} and set another output_dir{_meanwhile(config, stage)}.")
    return told


def answer_advice(form: str, outputs: int, unread: int) -> list[str]:
    """What to do about outputs whose answer the published rule does not read.

    Args:
        form: longmab.answer_form.
        outputs: how many there are.
        unread: those for which `has_unread_answer` holds.
    """
    if form == "tolerant" or unread <= _MANY * outputs:
        return []
    return [
        f"{unread:,} of {outputs:,} outputs give their answer in Markdown (such as **Answer**: X), where the published "
        "rule finds none. Set longmab.answer_form=tolerant and another output_dir."
    ]


def gold_advice(questions: int) -> list[str]:
    """What to do about questions for which `is_in_every_text` holds, if there are any."""
    if not questions:
        return []
    return [
        f"Questions whose gold answer is only an article or punctuation (such as A): {questions:,}. By the published "
        "rule every output holds such an answer, and SubEM is 1. Change these questions or remove them."
    ]


def _limits(config: GenerateConfig | ScoreConfig) -> dict[str, str]:
    """The setting that bounds the replies of each stage that has one."""
    if isinstance(config, LongMabGenerateConfig):
        return dict.fromkeys(("probe", "rollout"), "longmab.sampling.max_new_tokens")
    return {"sample": "longreward.sampling.max_new_tokens"} | dict.fromkeys(DIMENSIONS, "longreward.analysis_tokens")


def _meanwhile(config: GenerateConfig | ScoreConfig, stage: str) -> str:
    if stage not in ("rollout", "sample"):
        return ""
    if config.pairs.allow_truncated:
        return "; the pairs hold such replies"
    return ", or set pairs.allow_truncated=true; the pairs hold none of them"
