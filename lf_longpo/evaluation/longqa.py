"""Question answering over long contexts, scored as in LongMab-PO (arXiv 2508.13993, section 4).

The model answers each question over its whole context. EM, F1 and SubEM score the answer in the requested form, and are
0 if there is none.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig, LongQAConfig
from lf_longpo.data.questions import question_of
from lf_longpo.evaluation.benchmark import Row
from lf_longpo.evaluation.items import Item, Placed, item_of, read_sets
from lf_longpo.files.faults import AT_ONCE, Faults
from lf_longpo.models.calls import Calls
from lf_longpo.models.usage import Usage
from lf_longpo.text.answers import (
    exact_match,
    extract_answer,
    f1,
    has_unread_answer,
    is_in_every_text,
    sub_exact_match,
)
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRICS = ("em", "f1", "sub_em", "sub_em_output", "answered")


def score(prediction: str, answers: Iterable[str]) -> dict[str, float]:
    """Scores of one prediction, each in [0, 1].

    `em`, `f1` and `sub_em` are those of the extracted answer; `sub_em_output` looks for a gold answer anywhere in the
    output; `answered` is 1 where an answer was given in the asked form.
    """
    golds = list(answers)
    answer, found = extract_answer(prediction)
    return {
        "em": exact_match(answer, golds) if found else 0.0,
        "f1": f1(answer, golds) if found else 0.0,
        "sub_em": sub_exact_match(answer, golds) if found else 0.0,
        "sub_em_output": sub_exact_match(prediction, golds),
        "answered": float(found),
    }


class LongQA:
    """A `Benchmark`, which documents the members.

    Raises:
        UserError: the prompt template cannot be used.
    """

    name = "longqa"
    metrics: Sequence[str] = METRICS
    groups: Mapping[str, Collection[str]] = {}
    judge = None

    def __init__(self, config: LongQAConfig) -> None:
        self._config = config
        self.models: Mapping[str, ChatConfig] = {"longqa": config.model}
        self.template = load_prompt(config.prompt, QA_PROMPTS, QA_FIELDS, "prompt")
        self.asked = (self.template,)

    def items(self, faults: Faults = AT_ONCE) -> Placed:
        """Questions in the format of either paper; each file is a set."""
        return read_sets(self._config.input, self._config.input_split, _item, faults)

    def equip(self, judge: Calls | None) -> None:
        """There is no judge."""

    async def score(self, item: Item, answers: Sequence[str]) -> Row:
        """Scores against the gold answers."""
        (prediction,) = answers
        remarks = {
            "unread_answer": has_unread_answer(prediction),
            "gold_in_every_text": is_in_every_text(item.answers),
        }
        return {"prediction": prediction, **score(prediction, item.answers), **remarks}

    def estimate(self, item: Item, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Nothing, because there is no judge."""
        return {}


def _item(row: Any, place: str, stem: str) -> Item:
    question = question_of(row, place, needs_answers=True)
    return item_of(question, stem)
