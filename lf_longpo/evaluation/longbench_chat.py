"""LongBench-Chat (LongAlign, arXiv 2401.18058): open questions over long documents, rated from 1 to 10 by a judge.

The judge sees a reference answer and three answers with human ratings. The published score of up to 100 is ten times
the mean rating of 50 questions; so is this score, over the questions with a readable verdict.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig, LongBenchChatConfig
from lf_longpo.data.questions import question_of
from lf_longpo.errors import UserError
from lf_longpo.evaluation.benchmark import Row
from lf_longpo.evaluation.items import Item, Placed, item_of, read_sets
from lf_longpo.evaluation.referee import Referee, judge_prompt, verdict_usage
from lf_longpo.files.faults import AT_ONCE, Faults
from lf_longpo.judging.verdicts import rating_between
from lf_longpo.models.calls import Calls
from lf_longpo.models.tokenizers import chat_tokens
from lf_longpo.models.usage import Usage
from lf_longpo.text.halves import refuse_halves
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, fill, load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORST, _BEST = 1, 10
_VERDICTS = {str(rating): rating / _BEST for rating in range(_WORST, _BEST + 1)}


class LongBenchChat:
    """A `Benchmark`, which documents the members.

    Raises:
        UserError: the prompt template or the rated answers cannot be used.
    """

    name = "longbench-chat"
    metrics: Sequence[str] = ("judge",)
    groups: Mapping[str, Collection[str]] = {}
    _referee: Referee

    def __init__(self, config: LongBenchChatConfig) -> None:
        self._config = config
        self._shots = _read_shots(Path(config.few_shots))
        self._prompt = judge_prompt("longbench_chat", ("question", "reference", "examples", "answer"))
        self.models: Mapping[str, ChatConfig] = {"longbench-chat": config.model}
        self.judge = config.judge
        self.template = load_prompt(config.prompt, QA_PROMPTS, QA_FIELDS, "prompt")
        self.asked = (self.template, self._prompt, json.dumps(self._shots))

    def items(self, faults: Faults = AT_ONCE) -> Placed:
        """Rows as published: idx from 1, query, answer, and prompt (the document and the query)."""
        return read_sets(self._config.input, self._config.input_split, self._item, faults)

    def equip(self, judge: Calls | None) -> None:
        """Takes the judge."""
        if judge:
            self._referee = Referee(self._config.judging, self._config.judge, judge)

    async def score(self, item: Item, answers: Sequence[str]) -> Row:
        """The judge's rating divided by the highest one."""
        (prediction,) = answers
        prompt = self._judge_prompt(item, prediction)
        material = item.question + item.answers[0] + prediction + "".join(text for text, _ in item.examples)
        verdict = await self._referee.verdict("judge", item.id, lambda _: prompt, material, _VERDICTS, _parse)
        return {"prediction": prediction, "judge": verdict.pop("score"), **verdict}

    def estimate(self, item: Item, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """One verdict; the answer is assumed to be as long as the reference."""
        tokens = chat_tokens(self._judge_prompt(item, item.answers[0]), tokenizer, self.judge)
        return {"judge": verdict_usage(self._config.judging, self.judge, _VERDICTS, tokenizer, tokens)}

    def _judge_prompt(self, item: Item, answer: str) -> str:
        examples = "\n\n".join(f"An answer rated {rating:g}:\n{text}" for text, rating in item.examples)
        known = {"question": item.question, "reference": item.answers[0]}
        return fill(self._prompt, examples=examples, answer=answer, **known)

    def _item(self, row: Any, place: str, stem: str) -> Item:
        if isinstance(row, dict) and isinstance(row.get("prompt"), str) and "context" not in row:
            row = row | {"context": _document(row["prompt"], row.get("query"), place)}
        question = question_of(row, place, needs_answers=True)
        number = row.get("idx")
        if not isinstance(number, int) or not 1 <= number <= len(self._shots):
            raise UserError(
                f"{place}: the field idx must be a number from 1 to {len(self._shots)} (the lists in "
                f"{self._config.few_shots}), not {number!r}; fix it, or set few_shots to the file of these questions"
            )
        shots = self._shots[number - 1]
        return item_of(question, stem, shots)


def _parse(text: str) -> float | None:
    rating = rating_between(text, _WORST, _BEST)
    return None if rating is None else rating / _BEST


def _document(prompt: str, query: Any, place: str) -> str:
    """The document: a prompt without the query at its end."""
    text = prompt.rstrip()
    if not isinstance(query, str) or not query.strip() or not text.endswith(query.strip()):
        raise UserError(f"{place}: the field prompt must end with the field query; fix it, or give context and query")
    return text.removesuffix(query.strip()).rstrip()


def _read_shots(path: Path) -> list[tuple[tuple[str, float], ...]]:
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"few_shots: {path} cannot be read as JSON ({error}); fix it or name another file") from None
    if not isinstance(lists, list) or not lists:
        raise UserError(f"few_shots: {path} must hold a list with one list of rated answers for each question; fix it")
    return [tuple(_shots(given, f"few_shots: {path}, list {number}")) for number, given in enumerate(lists, 1)]


def _shots(given: Any, place: str) -> list[tuple[str, float]]:
    if not isinstance(given, list) or not given:
        raise UserError(f"{place} must be a list of rated answers, not {given!r:.80}; fix it")
    shots = []
    for shot in given:
        text, rating = (shot.get("answer"), shot.get("score")) if isinstance(shot, dict) else (None, None)
        is_number = isinstance(rating, int | float) and not isinstance(rating, bool)
        if not isinstance(text, str) or rating is None or not is_number or not _WORST <= rating <= _BEST:
            raise UserError(
                f'{place}: each rated answer must be {{"answer": text, "score": {_WORST} to {_BEST}}}, not {shot!r:.80}'
                "; fix it"
            )
        refuse_halves(shot, place)
        shots.append((text, float(rating)))
    return shots
