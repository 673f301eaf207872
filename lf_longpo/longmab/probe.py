"""The probe: the policy's reasoning when it is shown the answer, and the arm values that follow from it.

LongMab-PO (arXiv 2508.13993, section 3.1): a probe refers to the document, so it is closer than the question to the
chunks that hold the evidence. A question gives no pair when its probe misses the gold answer.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lf_longpo.text.answers import normalize_answer

if TYPE_CHECKING:
    from lf_longpo.models.embedders import Embedder

_MARKER = "the answer is"
FIELDS = ("context", "question", "answer")


def arrives_at(probe: str, answers: Sequence[str]) -> bool:
    """Whether the text after the probe's last "the answer is" contains a gold answer or is contained in one.

    Both sides are normalised. An empty side never counts: it would be contained in everything.
    """
    _, found, tail = probe.lower().rpartition(_MARKER)
    given = normalize_answer(tail)
    if not found or not given:
        return False
    golds = [gold for gold in map(normalize_answer, answers) if gold]
    return any(gold in given or given in gold for gold in golds)


async def arm_values(
    init: str, question_id: str, question: str, probe: str, chunks: Sequence[str], embedder: "Embedder", seed: int
) -> list[float]:
    """Each chunk's first value: cosine similarity to the probe or to the question, or seeded noise in [0, 1).

    Raises:
        CallFailed: the embedder lost a call.
    """
    if init == "random":
        draw = random.Random(f"{seed}/arms/{question_id}")
        return [draw.random() for _ in chunks]
    anchor = probe if init == "probe_similarity" else question
    return [float(value) for value in await embedder.similarities(question_id, anchor, chunks)]
