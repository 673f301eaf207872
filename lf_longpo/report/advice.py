"""Advice for runs with settings that do not fit their models or data."""

from collections.abc import Mapping

from lf_longpo.config import GenerateConfig, LongMabGenerateConfig, ScoreConfig
from lf_longpo.longreward.scorer import DIMENSIONS

# Advice is given if more than this share of the replies is concerned.
_MANY = 0.1


def truncation_advice(config: GenerateConfig | ScoreConfig, calls: Mapping[str, tuple[int, int]]) -> list[str]:
    """What to do about stages with many truncated replies.

    Args:
        config: the run's configuration.
        calls: by stage, the number of calls and the number of truncated replies.
    """
    advice = []
    for stage, setting in _limits(config).items():
        made, truncated = calls.get(stage, (0, 0))
        if truncated > _MANY * made:
            fault = f"{stage}: {truncated:,} of {made:,} replies were cut off at their token limit."
            advice.append(f"{fault} Raise {setting} and set another output_dir{_alternative(config, stage)}.")
    return advice


def answer_advice(form: str, outputs: int, unread: int) -> list[str]:
    """What to do about outputs with an answer that the published rule does not read.

    Args:
        form: the setting longmab.answer_form.
        outputs: the number of outputs.
        unread: the number of outputs for which `has_unread_answer` is true.
    """
    if form == "tolerant" or unread <= _MANY * outputs:
        return []
    return [
        f"{unread:,} of {outputs:,} outputs give their answer in Markdown (such as **Answer**: X), which the published "
        "rule does not read. Set longmab.answer_form=tolerant and another output_dir."
    ]


def gold_advice(questions: int) -> list[str]:
    """What to do about gold answers that every output contains.

    Args:
        questions: the number of questions with a gold answer for which `is_in_every_text` is true.
    """
    if not questions:
        return []
    return [
        f"Questions with a gold answer of only articles or punctuation (such as A): {questions:,}. The published rule "
        "finds such an answer in every output, so SubEM is 1. Change or remove these questions."
    ]


def thought_advice(thoughts: int) -> list[str]:
    """What to do about thoughts without an answer.

    Args:
        thoughts: their number.
    """
    if not thoughts:
        return []
    return [
        f"Replies with a thought and no answer: {thoughts:,}. Raise max_new_tokens (it counts thoughts) or "
        "thinking_tokens, or switch thinking off (extra_body: {chat_template_kwargs: {enable_thinking: false}}), and "
        "set another output_dir."
    ]


def _limits(config: GenerateConfig | ScoreConfig) -> dict[str, str]:
    """The setting with the token limit of the replies, by stage."""
    if isinstance(config, LongMabGenerateConfig):
        return dict.fromkeys(("probe", "rollout"), "longmab.sampling.max_new_tokens")
    return {"sample": "longreward.sampling.max_new_tokens"} | dict.fromkeys(DIMENSIONS, "longreward.analysis_tokens")


def _alternative(config: GenerateConfig | ScoreConfig, stage: str) -> str:
    if not isinstance(config, GenerateConfig) or stage not in ("rollout", "sample"):
        return ""
    if config.pairs.allow_truncated:
        return "; pairs can contain such replies"
    return ", or set pairs.allow_truncated=true; without it, the pairs contain no truncated replies"
