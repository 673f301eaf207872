"""What a question's page shows of one response."""

from collections.abc import Mapping, Sequence
from typing import Any

from lf_longpo.run_folder.question_records import QuestionResponse
from lf_longpo.text.differences import visible
from lf_longpo.viewer.gold_marks import marked
from lf_longpo.viewer.pair_evidence import dimension_scores, statement_rows

# The number of characters of a response and of an analysis, and of a chunk or passage that are shown.
_RESPONSE, _PASSAGE = 40_000, 20_000


def response_block(
    response: QuestionResponse,
    answers: Sequence[str],
    sides: Mapping[str, Mapping[str, Any]],
    context: str,
    chunks: Sequence[tuple[int, int]],
    with_chunks: bool,
) -> dict[str, Any]:
    """The response for the template.

    Args:
        response: the response.
        answers: the gold answers, to be marked.
        sides: of the present pair, by side, with the index of its response.
        context: of the question.
        chunks: the start and end of its chunks; empty if they are unknown.
        with_chunks: whether to show the text of the chunks in the response's prompt.
    """
    shown = chunks if with_chunks else ()
    return {
        "index": response.index,
        "reward": response.reward,
        "not_scored": response.not_scored,
        "round_reward": response.round_reward,
        "truncated": response.truncated,
        "characters": len(response.text),
        "thought": visible(response.thought, _RESPONSE),
        "pieces": marked(response.text, answers, _RESPONSE),
        "role": next((side for side, values in sides.items() if values["index"] == response.index), ""),
        "can_choose": response.reward is not None and bool(response.text.strip()),
        "arms": [arm + 1 for arm in response.arms],
        "chunks_known": bool(chunks),
        "chunk_texts": [
            (arm + 1, visible(context[slice(*shown[arm])], _PASSAGE)) for arm in response.arms if arm < len(shown)
        ],
        "scores": dimension_scores(response.details),
        "statements": [
            {
                "text": visible(row["fact"], _RESPONSE),
                "support": row["score"],
                "analysis": visible(row.get("analysis") or "", _RESPONSE),
                "passages": [visible(passage["content"], _PASSAGE) for passage in row.get("evidences") or []],
            }
            for row in statement_rows(response.details)
        ],
    }
