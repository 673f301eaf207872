"""Review decisions about the pairs of a data set. A file next to the data set holds them; the data set is not changed.

A decision belongs to the texts of a pair, not to its id or its line. A pair that is recreated with other texts is
undecided again.
"""

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lf_longpo.errors import UserError
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.journal import Journal, Row, read_rows
from lf_longpo.files.tables import places_and_rows

Verdict = Literal["accept", "reject", "edit", "choose"]
"""`choose`: a pair of a question without one, see `data.choices`."""

SIDES = "chosen", "rejected"
PAIR = ("prompt", *SIDES)
"""The columns of a pair, by LLaMA-Factory's names."""
ORIGIN = tuple(f"{side}_{name}" for side in SIDES for name in ("reward", "index", "thought"))
"""The columns with the origin of a pair's responses; only a decision `choose` has thoughts of their own."""
_FIELDS = ("digest", "decision")
_WITH_TEXTS = ("edit", "choose")


class Decision(NamedTuple):
    """A review decision; `chosen` and `rejected` are the new texts of an edited pair."""

    verdict: Verdict
    chosen: str | None = None
    rejected: str | None = None
    comment: str = ""
    reviewer: str = ""
    origin: Mapping[str, Any] | None = None
    """Where texts come from other responses of a run: the pair's columns `ORIGIN` with other values."""


def pair_digest(row: Row, columns: Mapping[str, str]) -> str:
    """Identifies a pair by its texts (or messages).

    Args:
        row: the pair.
        columns: the data set's names of the columns `PAIR`.
    """
    return hashlib.sha256(json.dumps([row.get(columns[name]) for name in PAIR]).encode()).hexdigest()[:24]


class Reviews:
    """The decisions about a data set. The first decision creates the file.

    The file holds every decision that was made. Decisions that were made together, such as those about all pairs of a
    list, are one change, which can be undone.

    Args:
        path: the file of decisions, see `decisions_of`.
        reviewer: who makes the new decisions; may be empty.
    """

    def __init__(self, path: Path, reviewer: str = "") -> None:
        self.path = path
        self._reviewer = reviewer
        self._journal: Journal | None = None
        self._decisions: dict[str, Decision | None] = {}
        self._change_of: dict[str, str] = {}
        self._pairs_of: dict[str, set[str]] = {}
        for row in read_rows(self.path, _FIELDS, _key):
            self._take(row)

    def of(self, digest: str) -> Decision | None:
        """The last decision about a pair; None if it is undecided."""
        return self._decisions.get(digest)

    def all(self) -> dict[str, Decision]:
        """The current decisions about pairs, by the pair's digest."""
        decisions = self._decisions.items()
        return {digest: decision for digest, decision in decisions if decision and decision.verdict != "choose"}

    def choices(self) -> dict[str, Decision]:
        """The pairs that were chosen from the responses of questions without a pair, by `choices.choice_key`."""
        made = ((key, decision) for key, decision in self._decisions.items() if decision)
        return {
            key: decision
            for key, decision in made
            if decision.verdict == "choose" and None not in (decision.chosen, decision.rejected)
        }

    def decide(self, digest: str, id: str, decision: Decision | None) -> str:
        """Records a decision about one pair, see `decide_all`; a decision that it has already stays that change."""
        return self.decide_all([(digest, id)], decision) or self._change_of.get(digest, "")

    def decide_all(self, pairs: Iterable[tuple[str, str]], decision: Decision | None, change: str = "") -> str:
        """Records the same decision about several pairs as one change. Pairs that have it already stay as they are.

        Args:
            pairs: the digest of each pair, see `pair_digest`, and its id, which is for readers of the file.
            decision: None makes the pairs undecided.
            change: an earlier change that these decisions belong to; empty for a new one.

        Returns:
            The name of the change, for `undo`; empty if it is new and there was nothing to change.

        Raises:
            OSError: a decision cannot be written; those before it are recorded.
        """
        # A decision that is recorded again for a recreated pair keeps its reviewer.
        reviewer = self._reviewer or (decision.reviewer if decision else "")
        decision = decision and decision._replace(reviewer=reviewer)
        row: Row = {"decision": decision.verdict if decision else "undecided"}
        if decision and decision.verdict in _WITH_TEXTS:
            row |= {"chosen": decision.chosen, "rejected": decision.rejected} | dict(decision.origin or {})
        if decision and decision.comment:
            row["comment"] = decision.comment
        if reviewer:
            row["reviewer"] = reviewer
        for digest, id in pairs:
            if self.of(digest) != decision:
                change = change or secrets.token_hex(6)
                self._append({"digest": digest, "id": id, **row, "change": change})
        return change

    def changed(self, change: str) -> set[str]:
        """The digests of the pairs of a change that have no later decision."""
        return {digest for digest in self._pairs_of.get(change, ()) if self._change_of.get(digest) == change}

    def undo(self, change: str) -> dict[str, Decision | None]:
        """Restores what was decided before a change about each of its pairs that has no later decision.

        Returns:
            The restored decisions, by the pair's digest.

        Raises:
            OSError: a decision cannot be written.
        """
        restored = {}
        for digest in sorted(self.changed(change)):
            rows = self._opened().rows(digest)
            first = next(number for number, row in enumerate(rows) if row.get("change") == change)
            undecided = {"digest": digest, "id": rows[first].get("id", ""), "decision": "undecided"}
            self._append(rows[first - 1] if first else undecided)
            restored[digest] = self.of(digest)
        return restored

    def close(self) -> None:
        """Closes the file."""
        if self._journal:
            self._journal.close()

    def _opened(self) -> Journal:
        if self._journal is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(self.path, _FIELDS, _key)
        return self._journal

    def _append(self, row: Row) -> None:
        self._opened().append(row)
        self._take(row)

    def _take(self, row: Row) -> None:
        digest, change = row["digest"], str(row.get("change", ""))  # files of earlier versions have no changes
        self._decisions[digest] = _decision(row)
        self._change_of[digest] = change
        if change:
            self._pairs_of.setdefault(change, set()).add(digest)


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
    dataset: Path,
    reviews: Reviews,
    columns: Mapping[str, str],
    counts: Counter[str],
    faults: Faults,
    only_accepted: bool = False,
) -> Iterator[tuple[str, Row]]:
    """Streams a data set without its rejected pairs, and with the texts of its edited pairs.

    An edited pair counts as accepted.

    Args:
        dataset: a file of pairs.
        reviews: the decisions about them.
        columns: the data set's names of the columns `PAIR`, and of `content_tag` if its messages have one.
        counts: gets the number of pairs by decision. `kept` are those that stay in the data set; `gone` are decisions
            about pairs that the data set no longer has.
        faults: collects the errors of rows that are not pairs.
        only_accepted: whether undecided pairs are removed, too.

    Raises:
        UserError: there are no decisions, no pair is left, or the data set cannot be read.
    """
    decisions = reviews.all()
    if not (decisions or reviews.choices()):
        raise UserError(f"{reviews.path} holds no decisions; review the pairs with longpo view first")
    seen = set[str]()
    for location, row in placed_pairs(dataset, columns, faults):
        digest = pair_digest(row, columns)
        decision = decisions.get(digest)
        seen.add(digest)
        counts[decision.verdict if decision else "undecided"] += 1
        if decision.verdict == "reject" if decision else only_accepted:
            continue
        if decision and decision.verdict == "edit":
            for side, text in (("chosen", decision.chosen), ("rejected", decision.rejected)):
                row[columns[side]] = _with_text(row[columns[side]], text, columns.get("content_tag"))
            row |= decision.origin or {}
        counts["kept"] += 1
        yield location, row
    counts["gone"] = len(decisions.keys() - seen)
    if not (counts["kept"] or faults or reviews.choices()):
        state = "no pair is accepted" if only_accepted else "all pairs are rejected"
        raise UserError(f"{dataset}: {state}, so nothing was written; accept some pairs with longpo view")


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
    comment, reviewer = (str(row.get(name) or "") for name in ("comment", "reviewer"))
    origin = {name: row[name] for name in ORIGIN if name in row}
    return Decision(row["decision"], row.get("chosen"), row.get("rejected"), comment, reviewer, origin or None)


def _key(row: Row) -> str | None:
    return row["digest"] if isinstance(row["digest"], str) else None
