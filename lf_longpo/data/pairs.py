"""The pairs of a run: fitted to the trainer's cutoff length, kept in a journal, and written in the input's order."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from lf_longpo.data.records import PreferencePair, Question, ScoredResponse, names, record_of
from lf_longpo.data.review import SIDES
from lf_longpo.errors import CallFailed, TextTooLong
from lf_longpo.files.journal import Journal

PAIRS = "pairs.jsonl"
UNFIT = "the training prompt does not fit pairs.cutoff_len"
"""How the reason of a question's failure begins if its pair does not fit the cutoff length."""


class PairFitter(Protocol):
    """Cuts a context so that the rendered prompt and the longest response fit the trainer's cutoff length."""

    def fit(self, context: str, render: Callable[[str], str], responses: Sequence[str]) -> str:
        """The context, cut in the middle if necessary.

        Raises:
            TextTooLong: the prompt does not fit even without a context.
        """
        ...

    def written(self, response: ScoredResponse) -> str:
        """The text of a response in a pair: the answer, with the thought before it where thoughts are kept."""
        ...


def may_train(text: str, truncated: bool, allow_truncated: bool) -> bool:
    """Whether a response may become chosen or rejected: it has text, and it is complete or `allow_truncated` is set."""
    return bool(text.strip()) and (allow_truncated or not truncated)


class Pairs:
    """Collects the pairs of a run. A pair from an earlier start stays until its question gets another pair or none.

    Args:
        output_dir: the run's folder.
        fitter: fits training prompts into the cutoff length.
        system: the policy's system prompt, if any; the pairs then have a field `system`.
    """

    def __init__(self, output_dir: Path, fitter: PairFitter, system: str | None = None) -> None:
        self.unfit = 0
        """The number of questions without a pair because no training prompt fits the cutoff length."""
        self._journal = Journal(output_dir / PAIRS, names(PreferencePair))
        self._fitter = fitter
        self._added = {"system": system} if system else {}
        self._without: set[str] = set()

    @property
    def skipped(self) -> int:
        """The number of lines in the journal that are not pairs."""
        return self._journal.skipped

    async def add(
        self, question: Question, render: Callable[[str], str], chosen: ScoredResponse, rejected: ScoredResponse
    ) -> None:
        """Makes the question's pair, unless the journal already has the same one.

        Args:
            question: what both responses answer.
            render: puts a context into the training prompt.
            chosen: the better response.
            rejected: the worse response.

        Raises:
            CallFailed: the responses do not fit the cutoff length.
        """
        earlier = self._journal.rows(question.id)
        texts = self._fitter.written(chosen), self._fitter.written(rejected)
        sides: dict[str, Any] = {
            f"{side}{suffix}": value
            for side, text, response in zip(SIDES, texts, (chosen, rejected), strict=True)
            for suffix, value in (("", text), ("_reward", response.reward), ("_index", response.index))
        }
        if not earlier or any(earlier[-1][name] != value for name, value in sides.items()):
            try:
                context = await asyncio.to_thread(self._fitter.fit, question.context, render, texts)
            except TextTooLong as error:
                self.drop(question.id)
                self.unfit += 1
                raise CallFailed(f"{UNFIT}: {error}") from None
            pair = PreferencePair(
                id=question.id,
                input=question.question,
                answer=list(question.answers),
                prompt=render(context),
                **sides,
            )
            self._journal.append(asdict(pair) | self._added)
        self._without.discard(question.id)

    def drop(self, id: str) -> None:
        """Removes a question's pair, also one from an earlier start."""
        self._without.add(id)

    def ids(self, question_ids: Iterable[str]) -> list[str]:
        """The ids of those questions that have a pair, in the given order."""
        return [id for id in question_ids if id in self._journal and id not in self._without]

    def lines(self, question_ids: Sequence[str]) -> Iterator[str]:
        """The pairs in the order of `question_ids`, as JSON lines.

        `answer` is a text in all lines, or a list in all lines if any question has several answers: LLaMA-Factory
        loads files with Arrow, which needs one type per column.
        """
        ids = self.ids(question_ids)
        single = all(len(self._pair(id)["answer"]) <= 1 for id in ids)
        for id in ids:
            pair = self._pair(id)
            if single:
                pair["answer"] = pair["answer"][0] if pair["answer"] else ""
            yield json.dumps(pair | self._added, ensure_ascii=False) + "\n"

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _pair(self, id: str) -> dict[str, Any]:
        pair = record_of(PreferencePair, self._journal.rows(id)[-1])
        return asdict(pair) | {"answer": [pair.answer] if isinstance(pair.answer, str) else pair.answer}
