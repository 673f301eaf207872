"""A session keeps its progress in the run's folder, and `longpo status` reads it. No model is needed."""

import asyncio
from dataclasses import dataclass

from lf_longpo.config import GenerateConfig
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.session import Session
from lf_longpo.errors import CallFailed
from lf_longpo.models.cache import StageTotals
from lf_longpo.models.ledger import Ledger
from lf_longpo.run_folder.status import status_of


@dataclass
class Question:
    id: str

    @property
    def key(self):
        return self.id


def configured(folder):
    policy = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "X"}
    data = {"method": "longmab", "input": "q.jsonl", "output_dir": str(folder / "run"), "dataset_name": "d"}
    return GenerateConfig.model_validate(data | {"policy": policy, "pairs": {"template": "t", "cutoff_len": 512}})


async def test_a_session_keeps_its_progress(tmp_path):
    folder, seen = tmp_path / "run", []
    async with Session(configured(tmp_path)) as session:
        session.open()
        progress = Progress("longmab", 12, 12, session.ledger)

        async def work(question):
            session.ledger.add("probe", StageTotals(1, 100, 10, 0.01))
            progress.step()
            if question.id in ("3", "4"):
                raise CallFailed(f"HTTP 50{question.id}")
            seen.append(status_of(folder))
            await asyncio.sleep(0)

        tally = await session.run([Question(str(i)) for i in range(12)], 12, work, 4, progress)
        session.write_summary({"questions": 12, "stage": "pairs", "pairs": 10} | tally.counts() | session.totals())
    assert {status.state for status in seen} == {"running"} and seen[0].questions == 12
    ended = status_of(folder)
    assert (ended.state, ended.done, ended.failed, ended.pairs) == ("ended", 10, 2, 10)
    assert (ended.failure.times, ended.failure.reason) == (2, "HTTP 503")
    (folder / "summary.json").unlink()
    stopped = status_of(folder)
    assert (stopped.state, stopped.done, stopped.failed, stopped.steps_left) == ("stopped", 10, 2, 0)
    assert stopped.calls["probe"]["calls"] == 12


def test_questions_to_come_are_expected_to_need_as_few_steps_as_those_that_ended():
    progress = Progress("longmab", 4, 40, Ledger(None))
    assert progress.snapshot()["total"] == 40
    for ended in (1, 2):
        for _ in range(3):
            progress.step()
        progress.spare(7)
        progress.questions_ended(ended, 0)
    assert (progress.snapshot()["steps"], progress.snapshot()["total"]) == (6, 12)
    for ended in (3, 4):  # these need all of their steps
        for _ in range(10):
            progress.step()
        progress.questions_ended(ended, 0)
    assert (progress.snapshot()["total"], progress.snapshot()["seconds_left"]) == (26, 0.0)
