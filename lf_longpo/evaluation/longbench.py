"""LongReward's evaluation (arXiv 2410.21252, section 4) on twelve sets of LongBench (arXiv 2308.14508).

A judge compares each answer with each reference and rates answers from 1 to 3 and summaries from 1 to 5; the highest
rating counts. An answer without a readable verdict has no score and is counted; the published code gives it 0.5.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.aio import all_settled
from lf_longpo.config import ChatConfig, LongBenchConfig
from lf_longpo.data.questions import filled_name, question_of
from lf_longpo.errors import UserError
from lf_longpo.evaluation.automatic import best, qa_f1, qa_f1_zh, rouge_l, rouge_l_zh
from lf_longpo.evaluation.benchmark import Row
from lf_longpo.evaluation.items import Item, Placed, item_of, read_sets, set_names
from lf_longpo.evaluation.referee import Referee, Scale, judge_prompt, verdict_usage
from lf_longpo.files.faults import AT_ONCE, Faults
from lf_longpo.models.calls import Calls
from lf_longpo.models.tokenizers import chat_tokens
from lf_longpo.models.usage import Usage
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, fill, load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SINGLE, MULTI, SUMMARY = "single-doc QA", "multi-doc QA", "summarisation"


class _Set(NamedTuple):
    group: str
    metric: Callable[[str, str], float]
    query: str = ""
    """The question for rows that are published without a question."""


_SETS = {
    "narrativeqa": _Set(SINGLE, qa_f1),
    "qasper": _Set(SINGLE, qa_f1),
    "multifieldqa_en": _Set(SINGLE, qa_f1),
    "multifieldqa_zh": _Set(SINGLE, qa_f1_zh),
    "hotpotqa": _Set(MULTI, qa_f1),
    "2wikimqa": _Set(MULTI, qa_f1),
    "musique": _Set(MULTI, qa_f1),
    "dureader": _Set(MULTI, rouge_l_zh),
    "gov_report": _Set(SUMMARY, rouge_l, "Summarise this government report on about one page."),
    "qmsum": _Set(SUMMARY, rouge_l),
    "multi_news": _Set(SUMMARY, rouge_l, "Summarise these news articles together on about one page."),
    "vcsum": _Set(SUMMARY, rouge_l_zh, "请用一段话总结这份会议记录。"),
}
# LongBench's other sets, which may be in the same folder or file.
_OTHERS = {
    *("triviaqa", "samsum", "lsht", "trec", "passage_count", "passage_retrieval_en", "passage_retrieval_zh"),
    *("lcc", "repobench-p"),
}
_SCALES = {SINGLE: Scale(3), MULTI: Scale(3), SUMMARY: Scale(5)}


class LongBench:
    """A `Benchmark`, which documents the members.

    Raises:
        UserError: the prompt template cannot be used.
    """

    name = "longbench"
    groups: Mapping[str, Collection[str]] = {
        group: [name for name, known in _SETS.items() if known.group == group] for group in (SINGLE, MULTI, SUMMARY)
    }

    def __init__(self, config: LongBenchConfig) -> None:
        self._config = config
        self._referee: Referee | None = None
        self.models: Mapping[str, ChatConfig] = {"longbench": config.model}
        self.judge = config.judge
        self.metrics: Sequence[str] = ("judge", "automatic") if config.judge else ("automatic",)
        self.template = load_prompt(config.prompt, QA_PROMPTS, QA_FIELDS, "prompt")
        answers = judge_prompt("longbench_qa", ("question", "reference", "answer"))
        summaries = judge_prompt("longbench_summary", ("reference", "answer"))
        self._prompts = {SINGLE: answers, MULTI: answers, SUMMARY: summaries}
        self.asked = (self.template, *((answers, summaries) if config.judge else ()))

    def items(self, faults: Faults = AT_ONCE) -> Placed:
        """Rows as published by LongBench or LongReward."""
        stems = set_names(self._config.input)
        return read_sets(self._config.input, self._config.input_split, partial(_item, stems=stems), faults)

    def equip(self, judge: Calls | None) -> None:
        """Takes the judge, if there is one."""
        if judge and self.judge:
            self._referee = Referee(self._config.judging, self.judge, judge)

    async def score(self, item: Item, answers: Sequence[str]) -> Row:
        """Scores by LongBench's metric and by the judge, each against the best reference."""
        (prediction,) = answers
        automatic = await asyncio.to_thread(best, _SETS[item.set].metric, prediction, item.answers)
        row = {"prediction": prediction, "automatic": automatic}
        referee = self._referee
        if referee is None:
            return row
        references = list(dict.fromkeys(item.answers))
        verdicts = await all_settled(*(self._verdict(referee, item, prediction, reference) for reference in references))
        scores = [verdict["score"] for verdict in verdicts]
        known = [score for score in scores if score is not None]
        # An unreadable verdict could be the highest, unless one has the highest possible score.
        is_known = len(known) == len(scores) or 1.0 in known
        return row | {"judge": max(known) if is_known else None, "verdicts": verdicts}

    async def _verdict(self, referee: Referee, item: Item, prediction: str, reference: str) -> dict[str, Any]:
        group = _SETS[item.set].group
        scale = _SCALES[group]
        prompt = fill(self._prompts[group], question=item.question, reference=reference, answer=prediction)
        material = item.question + reference + prediction
        verdict = await referee.verdict("judge", item.id, lambda _: prompt, material, scale.verdicts, scale.parse)
        return {"reference": reference, **verdict}

    def estimate(self, item: Item, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """A verdict per reference; answers are assumed to be as long as the references."""
        if self.judge is None:
            return {}
        prompt = self._prompts[_SETS[item.set].group]
        judged = Usage()
        for reference in dict.fromkeys(item.answers):
            bare = fill(prompt, question=item.question, reference=reference, answer=reference)
            judged += verdict_usage(
                self._config.judging,
                self.judge,
                _SCALES[_SETS[item.set].group].verdicts,
                tokenizer,
                chat_tokens(bare, tokenizer, self.judge),
            )
        return {"judge": judged}


def _item(row: Any, place: str, stem: str, stems: Collection[str]) -> Item | None:
    plain = stem.removesuffix("_e")  # LongBench-E, the sets' other selection
    if plain != stem and plain in stems:
        return None
    name = row.get("dataset", plain) if isinstance(row, dict) else plain
    if not isinstance(name, str):
        raise UserError(f"{place}: the field dataset must be a text, not {type(name).__name__}; fix it")
    name = name.removesuffix("_e")
    if name in _OTHERS:
        return None
    if name not in _SETS:
        raise UserError(f"{place}: LongBench has no set {name!r}; set the field dataset to one of {', '.join(_SETS)}")
    query = _SETS[name].query
    if query and isinstance(row, dict) and filled_name(row, "question") is None:
        row = row | {"query": query}
    return item_of(question_of(row, place, needs_answers=True), name)
