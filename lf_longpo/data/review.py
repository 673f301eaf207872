"""What people decided about the pairs of a data set: in a file beside it, so that the data set stays as it was made.

A decision belongs to a pair's texts, whatever its place and id: made anew with other texts, it is undecided again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lf_longpo.errors import UserError
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.journal import Journal, Row, read_rows
from lf_longpo.files.tables import places_and_rows

Verdict = Literal["accept", "reject", "edit"]

SIDES = "chosen", "rejected"
PAIR = ("prompt", *SIDES)
"""The columns that make a pair, as LLaMA-Factory calls them."""
_FIELDS = ("digest", "decision")


class Decision(NamedTuple):
    """What somebody decided, and the texts if they were edited."""

    verdict: Verdict
    chosen: str | None = None
    rejected: str | None = None


def pair_digest(row: Row, columns: Mapping[str, str]) -> str:
    """Tells a pair from all others by its texts, or by the messages that they are in."""
    return hashlib.sha256(json.dumps([row.get(columns[name]) for name in PAIR]).encode()).hexdigest()[:24]


class Reviews:
    """The decisions about a data set; its file is made with the first one.

    Args:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal: Journal | None = None
        self._decisions = {row["digest"]: _decision(row) for row in read_rows(self.path, _FIELDS, _key)}

    def of(self, digest: str) -> Decision | None:
        """What was decided last about a pair."""
        return self._decisions.get(digest)

    def all(self) -> dict[str, Decision]:
        """The decisions that stand, by the pair's digest."""
        return {digest: decision for digest, decision in self._decisions.items() if decision}

    def decide(self, digest: str, id: str, decision: Decision | None) -> None:
        """Writes a decision down; None takes it back.

        Raises:
            OSError: it cannot be written.
        """
        if self._journal is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(self.path, _FIELDS, _key)
        row = {"digest": digest, "id": id, "decision": decision.verdict if decision else "undecided"}
        if decision and decision.verdict == "edit":
            row |= {"chosen": decision.chosen, "rejected": decision.rejected}
        self._journal.append(row)
        self._decisions[digest] = decision

    def close(self) -> None:
        """Closes the file."""
        if self._journal:
            self._journal.close()


def decisions_of(dataset: Path) -> Path:
    """Where the decisions about a data set's file are: beside it."""
    return dataset.with_suffix(".review.jsonl")


def placed_pairs(dataset: Path, columns: Mapping[str, str], faults: Faults) -> Iterator[tuple[str, Row]]:
    """Streams the rows of a file of pairs, each after its place; they may hold half characters.

    Args:
        dataset: the file.
        columns: LLaMA-Factory's names of the columns prompt, chosen and rejected to the data set's.
        faults: takes the rows that are no pairs.
    """

    def pair(row: Any, place: str) -> Row:
        missing = [columns[name] for name in PAIR if not isinstance(row, dict) or columns[name] not in row]
        if missing:
            raise UserError(f"{place}: the field {missing[0]} is missing; add it or remove the pair")
        return row

    return parsed(places_and_rows(str(dataset), faults=faults, halves=True), pair, faults)


def reviewed_rows(
    dataset: Path, reviews: Reviews, columns: Mapping[str, str], told: Counter[str], faults: Faults
) -> Iterator[tuple[str, Row]]:
    """Streams a data set without the pairs that were rejected, and with the texts that were edited.

    Args:
        dataset: a file of pairs.
        reviews: what was decided about them.
        columns: LLaMA-Factory's names of the columns prompt, chosen and rejected to the data set's.
        told: counts pairs by what was decided about them; `undecided` ones stay in, `gone` are decisions about pairs
            that are not there any more.
        faults: takes the rows that are no pairs.

    Raises:
        UserError: nothing was decided, nothing stays, or the data set cannot be read.
    """
    decisions = reviews.all()
    if not decisions:
        raise UserError(f"{reviews.path} holds no decision; review the pairs with longpo view first")
    met, stay = set[str](), 0
    for place, row in placed_pairs(dataset, columns, faults):
        digest = pair_digest(row, columns)
        decision = decisions.get(digest)
        met.add(digest)
        told[decision.verdict if decision else "undecided"] += 1
        if decision and decision.verdict == "reject":
            continue
        if decision and decision.verdict == "edit":
            for side, text in (("chosen", decision.chosen), ("rejected", decision.rejected)):
                row[columns[side]] = _put(row[columns[side]], text)
        stay += 1
        yield place, row
    told["gone"] = len(decisions.keys() - met)
    if not (stay or faults):
        raise UserError(f"all pairs of {dataset} were rejected; nothing was written")


def text_of(value: Any) -> str:
    """The text of a response or prompt, which may be a message or a list of messages."""
    if isinstance(value, dict):
        return text_of(value.get("content", value.get("value", "")))
    if isinstance(value, list):
        return "\n\n".join(map(text_of, value))
    return value if isinstance(value, str) else ""


def response_of(value: Any) -> str:
    """The text of a response: of several messages the last one."""
    return text_of(value[-1:] if isinstance(value, list) else value)


def _put(value: Any, text: str) -> Any:
    """A response with another text, in the form that it had."""
    if isinstance(value, dict):
        return value | {"content" if "content" in value else "value": text}
    if isinstance(value, list):
        return [*value[:-1], _put(value[-1], text)]
    return text


def _decision(row: Row) -> Decision | None:
    if row["decision"] not in get_args(Verdict):
        return None
    return Decision(row["decision"], row.get("chosen"), row.get("rejected"))


def _key(row: Row) -> str | None:
    return row["digest"] if isinstance(row["digest"], str) else None
