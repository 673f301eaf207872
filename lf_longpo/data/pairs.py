"""The pairs of a run: fitted to the trainer's cutoff length, kept in a journal, and written in the input's order."""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from lf_longpo.data.pair_choice import ChosenRejected
from lf_longpo.data.records import PreferencePair, Question, ScoredResponse, names, record_of
from lf_longpo.data.review import SIDES
from lf_longpo.errors import CallFailed, TextTooLong, UserError
from lf_longpo.files.journal import Journal, Row, row_id

PAIRS = "pairs.jsonl"
QUESTION_ID = "question_id"
"""The field with the question's id, in data sets that may have several pairs of a question."""
UNFIT = "the training prompt does not fit pairs.cutoff_len"
"""How the reason of a question's failure begins if its pair does not fit the cutoff length."""

_SIDES = tuple(f"{side}{suffix}" for side in SIDES for suffix in ("", "_reward", "_index"))
_FURTHER = re.compile(r"(.+)#\d+-\d+", re.DOTALL)


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


def question_of_pair(row: Row) -> str | None:
    """The id of a pair's question; None if the row has no id. A question's first pair has the question's id."""
    id = row.get(QUESTION_ID)
    return id if isinstance(id, str) else row_id(row)


def pair_id(question_id: str, chosen: ScoredResponse, rejected: ScoredResponse) -> str:
    """The id of a further pair: `q1#3-17` has the responses 3 (chosen) and 17 (rejected) of the question `q1`."""
    return f"{question_id}#{chosen.index}-{rejected.index}"


def check_question_ids(ids: Collection[str]) -> None:
    """Checks that no question has an id that a pair of another question can get.

    Raises:
        UserError: a question has such an id.
    """
    for id in ids:
        if (further := _FURTHER.fullmatch(id)) and further[1] in ids:
            raise UserError(
                f"the id {id!r} of a question can become the id of a pair of the question {further[1]!r}; rename "
                "one of them, or set pairs.per_question: 1"
            )


class Pairs:
    """Collects the pairs of a run. Pairs from an earlier start stay until their question gets other pairs or none.

    The pairs of a question have the same prompt. In the journal, they follow each other; the first one has the
    question's id. If a question was worked on several times, the last rows count, from its id on.

    Args:
        output_dir: the run's folder.
        fitter: fits training prompts into the cutoff length.
        several: whether questions may have several pairs; the pairs then have a field `question_id`.
        system: the policy's system prompt, if any; the pairs then have a field `system`.
    """

    def __init__(self, output_dir: Path, fitter: PairFitter, several: bool = False, system: str | None = None) -> None:
        self.unfit = 0
        """The number of questions without a pair because no training prompt fits the cutoff length."""
        self._journal = Journal(output_dir / PAIRS, names(PreferencePair), question_of_pair)
        self._fitter = fitter
        self._several = several
        self._system = {"system": system} if system else {}
        self._without: set[str] = set()

    @property
    def skipped(self) -> int:
        """The number of lines in the journal that are not pairs."""
        return self._journal.skipped

    async def add(self, question: Question, render: Callable[[str], str], pairs: Sequence[ChosenRejected]) -> int:
        """Makes the question's pairs, unless the journal already has the same ones.

        The prompt of all pairs is fitted to the longest response of them. Further pairs that leave no room for a
        prompt are not made.

        Args:
            question: what the responses answer.
            render: puts a context into the training prompt.
            pairs: at least one; the first one gets the question's id.

        Returns:
            The number of pairs.

        Raises:
            CallFailed: the first pair leaves no room for a prompt.
        """
        earlier = [{name: row[name] for name in _SIDES} for row in self._current(question.id)]
        if earlier != [self._sides(*pair) for pair in pairs]:
            try:
                pairs, context = await asyncio.to_thread(self._fit, question.context, render, pairs)
            except TextTooLong as error:
                self.drop(question.id)
                self.unfit += 1
                raise CallFailed(f"{UNFIT}: {error}") from None
            if earlier != [self._sides(*pair) for pair in pairs]:
                self._append(question, render(context), pairs)
        self._without.discard(question.id)
        return len(pairs)

    def drop(self, id: str) -> None:
        """Removes a question's pairs, also those from an earlier start."""
        self._without.add(id)

    def ids(self, question_ids: Iterable[str]) -> list[str]:
        """The ids of those questions that have pairs, in the given order."""
        return [id for id in question_ids if id in self._journal and id not in self._without]

    def number(self, question_ids: Iterable[str]) -> int:
        """The number of pairs of these questions."""
        return sum(len(self._current(id)) for id in self.ids(question_ids))

    def lines(self, question_ids: Sequence[str]) -> Iterator[str]:
        """The pairs in the order of `question_ids`, as JSON lines; the pairs of a question follow each other.

        `answer` is a text in all lines, or a list in all lines if any question has several answers: LLaMA-Factory
        loads files with Arrow, which needs one type per column.
        """
        ids = self.ids(question_ids)
        single = all(len(_answers(row)) <= 1 for id in ids for row in self._current(id)[:1])
        for id in ids:
            for row in self._current(id):
                answers = _answers(row)
                pair = asdict(record_of(PreferencePair, row))
                pair["answer"] = (answers[0] if answers else "") if single else answers
                yield json.dumps(self._row(pair, id), ensure_ascii=False) + "\n"

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _current(self, id: str) -> list[Row]:
        """The rows of a question's pairs."""
        return current_pairs(self._journal.rows(id), id)

    def _fit(
        self, context: str, render: Callable[[str], str], pairs: Sequence[ChosenRejected]
    ) -> tuple[Sequence[ChosenRejected], str]:
        """The pairs that leave room for a prompt, and the context that fits all of them.

        Raises:
            TextTooLong: the first pair leaves no room.
        """
        try:
            return pairs, self._fitter.fit(context, render, self._texts(pairs))
        except TextTooLong:
            first, *further = pairs
            fitting = [first, *(pair for pair in further if self._leaves_room(pair, render))]
            return fitting, self._fitter.fit(context, render, self._texts(fitting))

    def _leaves_room(self, pair: ChosenRejected, render: Callable[[str], str]) -> bool:
        try:
            self._fitter.fit("", render, self._texts([pair]))
        except TextTooLong:
            return False
        return True

    def _texts(self, pairs: Sequence[ChosenRejected]) -> list[str]:
        return [self._fitter.written(response) for pair in pairs for response in pair]

    def _append(self, question: Question, prompt: str, pairs: Sequence[ChosenRejected]) -> None:
        ids = [question.id, *(pair_id(question.id, *pair) for pair in pairs[1:])]
        for id, pair in zip(ids, pairs, strict=True):
            record = PreferencePair(
                id=id, input=question.question, answer=list(question.answers), prompt=prompt, **self._sides(*pair)
            )
            self._journal.append(self._row(asdict(record), question.id))

    def _sides(self, chosen: ScoredResponse, rejected: ScoredResponse) -> dict[str, Any]:
        values = [
            value
            for response in (chosen, rejected)
            for value in (self._fitter.written(response), response.reward, response.index)
        ]
        return dict(zip(_SIDES, values, strict=True))

    def _row(self, pair: Row, id: str) -> Row:
        return pair | self._system | ({QUESTION_ID: id} if self._several else {})


def current_pairs(rows: Sequence[Row], id: str) -> list[Row]:
    """Those of a question's rows that count: the last ones, from its first pair on. Earlier rows were replaced.

    Args:
        rows: the question's rows in the journal, in their order.
        id: of the question.
    """
    starts = [number for number, row in enumerate(rows) if row["id"] == id]
    return list(rows[starts[-1] :]) if starts else []


def _answers(row: Row) -> list[str]:
    return [row["answer"]] if isinstance(row["answer"], str) else row["answer"]
