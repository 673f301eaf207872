"""Pairs that a reviewer chooses from the responses of a run's question, as review decisions.

If the question has a pair, the decision is an edit of the pair: a text and its reward and index are replaced. If it has
none, the decision `choose` holds both responses; the training prompt is made when the decisions are used. The run's
files never change.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lf_longpo.data.records import ScoredResponse
from lf_longpo.data.review import SIDES, Decision
from lf_longpo.errors import UserError

_SAME = "chosen and rejected would be the same text; use another response"


def choice_key(question_id: str) -> str:
    """Identifies the choice for a question without a pair among the decisions; no pair has this digest."""
    return hashlib.sha256(json.dumps(["question", question_id]).encode()).hexdigest()[:24]


def chosen_side(earlier: Decision | None, side: str, response: ScoredResponse) -> Decision:
    """The decision for a question without a pair after a response became one of its sides; the other side stays.

    Args:
        earlier: the decision before.
        side: `chosen` or `rejected`.
        response: the response.

    Raises:
        UserError: both sides would have the same text.
    """
    before = earlier if earlier and earlier.verdict == "choose" else Decision("choose")
    texts = {"chosen": before.chosen, "rejected": before.rejected, side: response.text}
    _refuse_same([texts[name] for name in SIDES])
    others = {name: value for name, value in (before.origin or {}).items() if not name.startswith(f"{side}_")}
    origin = others | _origin(side, response) | ({f"{side}_thought": response.thought} if response.thought else {})
    return Decision("choose", texts["chosen"], texts["rejected"], origin=origin)


def responses_of(choice: Decision) -> dict[str, ScoredResponse]:
    """The responses of a decision `choose` by side; a side that is not chosen yet is missing."""
    origin = choice.origin or {}
    return {
        side: ScoredResponse(
            text, float(origin[f"{side}_reward"]), int(origin[f"{side}_index"]), str(origin.get(f"{side}_thought", ""))
        )
        for side, text in (("chosen", choice.chosen), ("rejected", choice.rejected))
        if text is not None and f"{side}_reward" in origin
    }


def replaced_side(
    pair: Mapping[str, Any], texts: Sequence[str], earlier: Decision | None, side: str, response: ScoredResponse
) -> Decision:
    """The decision about a pair after another response replaced one of its sides.

    Args:
        pair: the pair's row.
        texts: of the pair, as it is in the data set: chosen and rejected.
        earlier: the decision before.
        side: `chosen` or `rejected`.
        response: the response, with the text that the pair gets.

    Raises:
        UserError: both sides would have the same text.
    """
    edited = earlier if earlier and earlier.verdict == "edit" else None
    now = dict(zip(SIDES, (edited.chosen, edited.rejected) if edited else texts, strict=True))
    now[side] = response.text
    _refuse_same([now[name] for name in SIDES])
    if list(now.values()) == list(texts):
        return Decision("accept", comment=earlier.comment if earlier else "")
    origin = {**((edited and edited.origin) or {}), **_origin(side, response)}
    changed = {name: value for name, value in origin.items() if pair.get(name) != value}
    comment = earlier.comment if earlier else ""
    return Decision("edit", now["chosen"], now["rejected"], comment, origin=changed or None)


def kept_origin(texts: Sequence[str], originals: Sequence[str], earlier: Decision | None) -> Mapping[str, Any] | None:
    """The origin of a pair's texts after another edit: a side that has its original text again has its own origin.

    Args:
        texts: chosen and rejected after the edit.
        originals: those of the data set.
        earlier: the decision before.
    """
    edited = {side for side, text, original in zip(SIDES, texts, originals, strict=True) if text != original}
    origin = (earlier.origin or {}) if earlier and earlier.verdict == "edit" else {}
    return {name: value for name, value in origin.items() if name.split("_")[0] in edited} or None


def _origin(side: str, response: ScoredResponse) -> dict[str, Any]:
    return {f"{side}_reward": response.reward, f"{side}_index": response.index}


def _refuse_same(texts: Sequence[str | None]) -> None:
    if texts[0] is not None and texts[0] == texts[1]:
        raise UserError(_SAME)
