"""Review decisions about the pairs of a data set. A file next to the data set holds them; the data set is not changed.

A decision belongs to the texts of a pair, not to its id or its line. A pair that is recreated with other texts is
undecided again.
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
"""The columns of a pair, by LLaMA-Factory's names."""
_FIELDS = ("digest", "decision")


class Decision(NamedTuple):
    """A review decision; `chosen` and `rejected` are the new texts of an edited pair."""

    verdict: Verdict
    chosen: str | None = None
    rejected: str | None = None


def pair_digest(row: Row, columns: Mapping[str, str]) -> str:
    """Identifies a pair by its texts (or messages).

    Args:
        row: the pair.
        columns: the data set's names of the columns `PAIR`.
    """
    return hashlib.sha256(json.dumps([row.get(columns[name]) for name in PAIR]).encode()).hexdigest()[:24]


class Reviews:
    """The decisions about a data set. The first decision creates the file.

    Args:
        path: the file of decisions, see `decisions_of`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal: Journal | None = None
        self._decisions = {row["digest"]: _decision(row) for row in read_rows(self.path, _FIELDS, _key)}

    def of(self, digest: str) -> Decision | None:
        """The last decision about a pair; None if it is undecided."""
        return self._decisions.get(digest)

    def all(self) -> dict[str, Decision]:
        """The current decisions, by the pair's digest."""
        return {digest: decision for digest, decision in self._decisions.items() if decision}

    def decide(self, digest: str, id: str, decision: Decision | None) -> None:
        """Records a decision.

        Args:
            digest: of the pair, see `pair_digest`.
            id: of the pair, for readers of the file.
            decision: None undoes an earlier decision.

        Raises:
            OSError: the decision cannot be written.
        """
        if self._journal is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(self.path, _FIELDS, _key)
        row: Row = {"digest": digest, "id": id, "decision": decision.verdict if decision else "undecided"}
        if decision and decision.verdict == "edit":
            row |= {"chosen": decision.chosen, "rejected": decision.rejected}
        self._journal.append(row)
        self._decisions[digest] = decision

    def close(self) -> None:
        """Closes the file."""
        if self._journal:
            self._journal.close()


def decisions_of(dataset: Path) -> Path:
    """The file of the decisions about a data set: it is next to the data set's file."""
    return dataset.with_suffix(".review.jsonl")


def placed_pairs(dataset: Path, columns: Mapping[str, str], faults: Faults) -> Iterator[tuple[str, Row]]:
    """Streams the rows of a file of pairs, each with its location; their texts may hold half characters.

    Args:
        dataset: the file.
        columns: the data set's names of the columns `PAIR`.
        faults: collects the errors of rows that are not pairs.
    """

    def pair(row: Any, location: str) -> Row:
        missing = [columns[name] for name in PAIR if not isinstance(row, dict) or columns[name] not in row]
        if missing:
            raise UserError(f"{location}: the field {missing[0]} is missing; add it or remove the pair")
        return dict(row)

    return parsed(places_and_rows(str(dataset), faults=faults, halves=True), pair, faults)


def reviewed_rows(
    dataset: Path, reviews: Reviews, columns: Mapping[str, str], counts: Counter[str], faults: Faults
) -> Iterator[tuple[str, Row]]:
    """Streams a data set without its rejected pairs, and with the texts of its edited pairs.

    Args:
        dataset: a file of pairs.
        reviews: the decisions about them.
        columns: the data set's names of the columns `PAIR`, and of `content_tag` if its messages have one.
        counts: gets the number of pairs by decision. `undecided` pairs stay in the data set; `gone` are decisions
            about pairs that the data set no longer has.
        faults: collects the errors of rows that are not pairs.

    Raises:
        UserError: there are no decisions, all pairs were rejected, or the data set cannot be read.
    """
    decisions = reviews.all()
    if not decisions:
        raise UserError(f"{reviews.path} holds no decisions; review the pairs with longpo view first")
    seen, kept = set[str](), 0
    for location, row in placed_pairs(dataset, columns, faults):
        digest = pair_digest(row, columns)
        decision = decisions.get(digest)
        seen.add(digest)
        counts[decision.verdict if decision else "undecided"] += 1
        if decision and decision.verdict == "reject":
            continue
        if decision and decision.verdict == "edit":
            for side, text in (("chosen", decision.chosen), ("rejected", decision.rejected)):
                row[columns[side]] = _with_text(row[columns[side]], text, columns.get("content_tag"))
        kept += 1
        yield location, row
    counts["gone"] = len(decisions.keys() - seen)
    if not (kept or faults):
        raise UserError(f"all pairs of {dataset} are rejected, so nothing was written; accept some with longpo view")


def text_of(value: Any, tag: str | None = None) -> str:
    """The text of a prompt or response: a text, a message, or a list of messages.

    Args:
        value: the value in a row.
        tag: the field of a message with its text. Default: `content`, else `value`.
    """
    if isinstance(value, dict):
        return text_of(value.get(_text_field(value, tag)), tag)
    if isinstance(value, list):
        return "\n\n".join(text_of(message, tag) for message in value)
    return value if isinstance(value, str) else ""


def response_of(value: Any, tag: str | None = None) -> str:
    """The text of a response; if it is a list of messages, the text of the last one. Arguments as for `text_of`."""
    return text_of(value[-1:] if isinstance(value, list) else value, tag)


def _text_field(message: Mapping[str, Any], tag: str | None) -> str:
    return next((name for name in (tag, "content") if name and name in message), "value")


def _with_text(value: Any, text: str | None, tag: str | None) -> Any:
    """A response with another text, in the same form (text, message or messages)."""
    if isinstance(value, dict):
        return value | {_text_field(value, tag): text}
    if isinstance(value, list):
        return [*value[:-1], _with_text(value[-1], text, tag)]
    return text


def _decision(row: Row) -> Decision | None:
    if row["decision"] not in get_args(Verdict):
        return None
    return Decision(row["decision"], row.get("chosen"), row.get("rejected"))


def _key(row: Row) -> str | None:
    return row["digest"] if isinstance(row["digest"], str) else None
