"""A judge that rates answers of an evaluation, and what becomes of a verdict that cannot be read."""

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

# Tokens of a reason and a verdict, assumed.
_REASON = 60


def judge_prompt(name: str, fields: Collection[str]) -> str:
    """One of the prompts beside this file."""
    return load_prompt(name, Path(__file__).parent / "prompts", fields, "judge")


class Scale:
    """Whole ratings from 1 to `best`, told as 0 to 1."""

    def __init__(self, best: int) -> None:
        self.best = best
        self.verdicts = {str(rating): self.share(rating) for rating in range(1, best + 1)}

    def share(self, rating: float) -> float:
        """Where a rating lies between the worst, 0, and the best, 1."""
        return (rating - 1) / (self.best - 1)

    def parse(self, text: str) -> float | None:
        """What the last rating in a text is worth; None without one on the scale."""
        rating = rating_between(text, 1, self.best)
        return None if rating is None else self.share(rating)


class Referee:
    """Asks the judge.

    Args:
        config: how verdicts are read.
        judge: who judges.
        calls: the same, to be asked.

    Raises:
        UserError: verdicts are to be read in a way that the judge has not.
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
        """`score` and `analysis`; the score is None, and the analysis the judge's last words, where none can be read.

        Args:
            stage: what is judged, by name.
            id: of the item.
            render: puts a context, whole or cut, into the judge's prompt.
            material: what is judged; the reply may quote it.
            verdicts: what each verdict is worth.
            parse: the worth of the verdict in a reply.
            context: what gives way where the judge's window is too small.

        Raises:
            CallFailed: a call was lost.
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
    """What one of the verdicts `labels` over a prompt of so many tokens is expected to take."""
    calls = calls_a_verdict(config, judge, labels, tokenizer)
    return Usage(calls, calls * prompt_tokens, min(_REASON, config.analysis_tokens) + calls - 1 or 1)
