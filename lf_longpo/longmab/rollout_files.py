"""The journals of a LongMab-PO run: probes and rollouts."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from lf_longpo.config import LongMabGenerateConfig
from lf_longpo.data.records import Probe, Question, Rollout, names, record_of
from lf_longpo.files.journal import Journal, RowsById, read_rows
from lf_longpo.longmab.rounds import Rounds

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


def all_rolled_out(config: LongMabGenerateConfig, questions: Iterable[Question]) -> bool:
    """Whether a run over these questions needs no model any more. Reads the journals only."""
    folder = config.output_dir
    kept = {row["id"]: row["kept"] for row in read_rows(folder / PROBES, names(Probe))}
    rollouts = RowsById(folder / ROLLOUTS, names(Rollout))
    rollouts.read_on()

    def is_done(question: Question) -> bool:
        if not kept.get(question.id, True):
            return True
        finished = {row["round"]: record_of(Rollout, row) for row in rollouts.rows(question.id)}
        return question.id in kept and Rounds(question, config).replay(finished).ended

    return all(map(is_done, questions))
