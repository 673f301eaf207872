"""Questions about a document and their answers, both written by a model that reads the document.

As in LongAlign (arXiv 2401.18058, section 3.1), one call writes a question of a drawn kind and a second one answers it.
All prompts about a document begin with it, so that a server with a prefix cache reads it once.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lf_longpo.aio import all_settled
from lf_longpo.config import SelfInstructConfig
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.chat import Completion
from lf_longpo.models.embedded import is_embedded
from lf_longpo.synthesis.long_texts import LongText
from lf_longpo.synthesis.near_duplicates import adds_nothing, asked_already
from lf_longpo.text.language import detect_language
from lf_longpo.text.prompt_set import PromptSet

QUESTION, ANSWER = "question", "answer"
KEPT = "kept"
UNFINISHED_THOUGHT = "unfinished thought"

_FULL = Path(__file__).parent / "prompts"
_SHIPPED = {"full": _FULL, "brief": _FULL / "brief"}
_FIELDS = {QUESTION: ("context", "task"), ANSWER: ("context", "question")}
_LABEL = re.compile(
    r"[#*_\s]*(?:(?:question|q|问题|题目|问)\s*[\d一二三四五]{0,2}|here\b[^:：\n]{0,60}\bquestion\b[^:：\n]{0,60})"
    r"[*_\s]*(?:[:：]|\n)[*_]*\s*",
    re.IGNORECASE,
)
_ANSWER_LABEL = (
    r"[#*_\s>]*(?:(?i:(?:sample|correct|model|reference)?\s*answer)|参考答案|标准答案|答案|回答|答)[*_\s]*[:：][*_]*"
)
# Small models continue with an answer of their own. "A:" marks an answer, unless a "B:" follows: then it is a list.
_OWN_ANSWER = re.compile(rf"^(?:{_ANSWER_LABEL}|A[:：](?!.*^\W*B[:：]))", re.MULTILINE | re.DOTALL)
_WRAPPINGS = ("**", "**"), ("*", "*"), ('"', '"'), ("“", "”"), ("「", "」")
_UNANSWERABLE = re.compile(r"\[+\s*unanswerable\s*\]+|^\W*unanswerable\W*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Written:
    """A question, its answer, and whether they are kept."""

    kind: str
    outcome: str
    """`KEPT`, or the reason why it is not kept."""
    question: str = ""
    answer: str = ""


class SelfInstruct:
    """Writes questions and answers; any number of documents can be in progress at once.

    Args:
        config: number and kinds of questions, sampling and prompts.

    Raises:
        UserError: a prompt cannot be used.
    """

    def __init__(self, config: SelfInstructConfig) -> None:
        self._config = config
        stages = _FIELDS | {kind: () for kind in config.kinds}
        name = config.prompts or ("brief" if is_embedded(config.model.model) else "full")
        self._prompts = PromptSet(stages, _FULL, _SHIPPED.get(name, Path(name)), "prompts")

    @property
    def asked(self) -> list[str]:
        """The prompt texts: they determine the requests, together with the documents and settings."""
        return self._prompts.texts

    async def write(self, text: LongText, calls: Calls) -> list[Written]:
        """The questions about one document, kept or not.

        Raises:
            CallFailed: a call failed for good.
        """
        replies = await all_settled(
            *(self._ask(text, number, kind, calls) for number, kind in enumerate(self.kinds(text.id)))
        )
        written: list[Written] = []
        for kind, reply in zip(self.kinds(text.id), replies, strict=True):
            kept = [question.question for question in written if question.outcome == KEPT]
            written.append(_question(kind, reply, kept))
        return await all_settled(*(self._answered(text, i, question, calls) for i, question in enumerate(written)))

    def kinds(self, id: str) -> list[str]:
        """The kinds of questions for a document; each kind is used once before one is used twice."""
        draw, kinds = random.Random(f"{self._config.seed}/kinds/{id}"), list[str]()
        while len(kinds) < self._config.questions_per_document:
            kinds += draw.sample(self._config.kinds, len(self._config.kinds))
        return kinds[: self._config.questions_per_document]

    def asking(self, text: LongText, kind: str) -> Callable[[str], str]:
        """The prompt for a question, as a function of the text."""
        language = detect_language(text.text)
        return self._prompts.render(QUESTION, language, task=self._prompts.text(kind, language))

    def answering(self, text: LongText, question: str) -> Callable[[str], str]:
        """The prompt for an answer, as a function of the text."""
        return self._prompts.render(ANSWER, detect_language(text.text), question=question)

    async def _ask(self, text: LongText, number: int, kind: str, calls: Calls) -> Completion:
        render = self.asking(text, kind)
        call = Call(QUESTION, text.id, number, self._config.sampling, render, text.text, following=1)
        return await calls.complete(call)

    async def _answered(self, text: LongText, number: int, written: Written, calls: Calls) -> Written:
        if written.outcome != KEPT:
            return written
        render = self.answering(text, written.question)
        reply = await calls.complete(Call(ANSWER, text.id, number, self._config.sampling, render, text.text))
        answer = re.sub(rf"\A{_ANSWER_LABEL}", "", reply.text).strip()
        outcome = KEPT
        if reply.unfinished_thought:
            outcome = UNFINISHED_THOUGHT
        elif _UNANSWERABLE.search(answer) or not re.search(r"\w", answer):
            outcome = "unanswerable"
        elif reply.truncated:
            outcome = "cut off"
        elif adds_nothing(answer, written.question):
            outcome = "only repeated"
        return Written(written.kind, outcome, written.question, answer)


def _question(kind: str, reply: Completion, earlier: Sequence[str]) -> Written:
    if reply.unfinished_thought:
        return Written(kind, UNFINISHED_THOUGHT)
    found = find_question(reply.text)
    if not found:
        return Written(kind, "no question", reply.text)
    if reply.truncated and not _OWN_ANSWER.search(reply.text):
        return Written(kind, "cut off", found)
    return Written(kind, "asked already" if asked_already(found, earlier) else KEPT, found)


def find_question(reply: str) -> str:
    """The question in a reply, without a label, quotes or a following answer; may be empty."""
    text = _unwrapped(reply.strip())
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) else text
    end = _OWN_ANSWER.search(text)
    text = _unwrapped((text[: end.start()] if end else text).strip())
    if text.count("**") % 2:  # the label was inside the bold text
        text = text.removesuffix("**")
    return text if re.search(r"\w", text) else ""


def _unwrapped(text: str) -> str:
    for opening, closing in _WRAPPINGS:
        inner = text.removeprefix(opening).removesuffix(closing)
        if len(text) - len(inner) == len(opening + closing) and opening not in inner and closing not in inner:
            return inner.strip()
    return text
