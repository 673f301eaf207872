"""The probe: what the policy reasons when it knows the answer, and the arm values that follow from it.

LongMab-PO (arXiv 2508.13993, section 3.1): a probe that refers to the document is closer to the chunks that carry the
evidence than the question is; a question whose probe misses the gold answer is left out.
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
    """Whether the text behind the probe's last "the answer is" contains a gold answer or is contained in one.

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
    vectors = await embedder.embed(question_id, [anchor, *chunks])
    return (vectors[1:] @ vectors[0]).tolist()
