"""The judge of an evaluation; a verdict that cannot be read gives no score."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig, VerdictConfig
from lf_longpo.judging.verdict_requests import Judge, JudgeRequest, Unreadable, calls_a_verdict
from lf_longpo.judging.verdicts import rating_between
from lf_longpo.models.calls import Calls
from lf_longpo.models.usage import Usage
from lf_longpo.text.prompts import load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Assumed tokens of a reason and a verdict.
_REASON = 60


def judge_prompt(name: str, fields: Collection[str]) -> str:
    """A prompt of the folder prompts/."""
    return load_prompt(name, Path(__file__).parent / "prompts", fields, "judge")


class Scale:
    """Integer ratings from 1 to `best`, mapped to [0, 1]."""

    def __init__(self, best: int) -> None:
        self.best = best
        self.verdicts = {str(rating): self.share(rating) for rating in range(1, best + 1)}

    def share(self, rating: float) -> float:
        """The rating mapped to [0, 1]."""
        return (rating - 1) / (self.best - 1)

    def parse(self, text: str) -> float | None:
        """The last rating in a text, mapped to [0, 1]; None if there is none on the scale."""
        rating = rating_between(text, 1, self.best)
        return None if rating is None else self.share(rating)


class Referee:
    """Gets verdicts from the judge.

    Args:
        config: how verdicts are read.
        judge: the judge's settings.
        calls: calls of the judge.

    Raises:
        UserError: the judge does not support the configured way to read verdicts.
    """

    def __init__(self, config: VerdictConfig, judge: ChatConfig, calls: Calls) -> None:
        self._judge = Judge(config, judge, calls, "judging")
        self._tokens = config.analysis_tokens

    async def verdict(
        self,
        stage: str,
        id: str,
        render: Callable[[str], str],
        material: str,
        verdicts: Mapping[str, float],
        parse: Callable[[str], float | None],
        context: str = "",
    ) -> dict[str, Any]:
        """`score` and `analysis`. Without a readable verdict: None and the judge's last words.

        Args:
            stage: name of the stage, for progress and usage.
            id: the item's id.
            render: the judge's prompt, as a function of the context, whole or cut.
            material: the judged texts, which the reply may quote.
            verdicts: the score of each verdict.
            parse: the score of the verdict in a reply.
            context: the text that is cut if the judge's window is too small.

        Raises:
            CallFailed: a call failed for good.
        """
        asked = JudgeRequest(stage, id, render, self._tokens, material, context)
        try:
            return await self._judge.verdict(asked, verdicts, parse)
        except Unreadable as error:
            return {"score": None, "analysis": error.last_words}


def verdict_usage(
    config: VerdictConfig,
    judge: ChatConfig,
    labels: Collection[str],
    tokenizer: "PreTrainedTokenizerBase",
    prompt_tokens: int,
) -> Usage:
    """Expected calls and tokens of a verdict.

    Args:
        config: how verdicts are read.
        judge: the judge's settings.
        labels: the possible verdicts.
        tokenizer: counts tokens.
        prompt_tokens: tokens of the judge's prompt.
    """
    calls = calls_a_verdict(config, judge, labels, tokenizer)
    return Usage(calls, calls * prompt_tokens, min(_REASON, config.analysis_tokens) + calls - 1 or 1)
