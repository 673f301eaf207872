"""The journals of a LongMab-PO run: probes and rollouts."""

from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from lf_longpo.data.records import Probe, Rollout, names, record_of
from lf_longpo.files.journal import Journal, read_rows

PROBES, ROLLOUTS = "probes.jsonl", "rollouts.jsonl"


class Journals:
    """The journals of one run.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, output_dir: Path) -> None:
        self.probes = Journal(output_dir / PROBES, names(Probe))
        self.rollouts = Journal(output_dir / ROLLOUTS, names(Rollout))

    @property
    def skipped(self) -> int:
        """Lines of both that cannot be read; their work is done again."""
        return self.probes.skipped + self.rollouts.skipped

    def probe(self, question_id: str) -> Probe | None:
        """The probe of a question, if it was made."""
        rows = self.probes.rows(question_id)
        return record_of(Probe, rows[-1]) if rows else None

    def finished_rounds(self, question_id: str, rounds: int) -> dict[int, Rollout]:
        """Those of the first `rounds` rollouts of a question that were made, by round."""
        rows = self.rollouts.rows(question_id)
        return {row["round"]: record_of(Rollout, row) for row in rows if row["round"] < rounds}

    def __enter__(self) -> "Journals":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.probes.close()
        self.rollouts.close()


def all_rolled_out(output_dir: Path, question_ids: Collection[str], rounds: int) -> bool:
    """Whether a run needs no model any more. Reads the journals only."""
    kept = {row["id"]: row["kept"] for row in read_rows(output_dir / PROBES, names(Probe))}
    if any(question_id not in kept for question_id in question_ids):
        return False
    done: dict[str, set[int]] = {}
    for row in read_rows(output_dir / ROLLOUTS, names(Rollout)):
        done.setdefault(row["id"], set()).add(row["round"])
    wanted = set(range(rounds))
    return all(not kept[question_id] or wanted <= done.get(question_id, set()) for question_id in question_ids)
