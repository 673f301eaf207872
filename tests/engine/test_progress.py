"""The progress of a run, as a terminal and a log show it."""

import pytest
from rich.console import Console

from lf_longpo.engine.failures import Failures
from lf_longpo.engine.outcomes import Outcome, Outcomes
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import CallFailed
from lf_longpo.models.cache import StageTotals
from lf_longpo.models.ledger import Ledger


@pytest.fixture
def clock(monkeypatch):
    """The seconds since the start."""
    now = [0.0]
    monkeypatch.setattr("lf_longpo.engine.progress.time.monotonic", lambda: now[0])
    return now


def under_way(folder, clock, counts, reason=None, failed=0, name="questions"):
    """A run after 5,000 seconds and a third of its steps."""
    ledger = Ledger()
    progress = Progress("longmab", 500, 360_000, ledger, name)
    failures, outcomes = Failures(folder / "failures.jsonl"), Outcomes(progress)
    progress.show_failures(failures)
    for _ in range(failed):
        failures.record("q", CallFailed(reason))
    failures.close()
    for outcome, number in counts.items():
        for _ in range(number):
            outcomes.count(outcome)
    progress.questions_ended(sum(counts.values()) + failed, failed)
    for _ in range(120_000):
        progress.step()
    ledger.add("rollout", StageTotals(10, 100, 4_000_000, 0.0))
    ledger.retries = 7
    clock[0] = 5000.0
    return progress


def shown(progress, width):
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(progress)
    return capture.get()


MANY = {Outcome.PAIR: 311, Outcome.NO_REWARD_DIFFERENCE: 91, Outcome.PROBE_FAILED: 8, Outcome.TRUNCATED: 2}


def test_a_terminal_of_80_columns_shows_two_lines_with_all_facts(tmp_path, clock):
    reason = "http://gpu:8000/v1 answered 500: boom\n\x1b[2Jbang"
    progress = under_way(tmp_path, clock, {Outcome.PAIR: 311}, reason, failed=3)
    first, second, end = shown(progress, 80).split("\n")
    assert first.startswith("longmab ━━━━━━━━━") and first.endswith(" 120,000/360,000 steps 1:23:20 left 2:46:40")
    assert len(first) < 80 and len(second) < 80
    assert second == "314/500 questions, 3 failed, 311 pairs, 800 tokens/s, 7 retries; answered 500:…"
    assert end == ""


def test_a_wide_terminal_leaves_nothing_out_and_a_narrow_one_the_least_useful(tmp_path, clock):
    progress = under_way(tmp_path, clock, MANY, "HTTP 500: boom", failed=3)
    counts = "415/500 questions, 3 failed, 311 pairs"
    rare = "91 no reward difference, 8 probe failed, 2 truncated"
    assert shown(progress, 200).split("\n")[1] == f"{counts}, {rare}, 800 tokens/s, 7 retries; HTTP 500: boom"
    assert shown(progress, 100).split("\n")[1] == f"{counts}, 800 tokens/s, 7 retries; HTTP 500: boom"
    assert shown(progress, 60).split("\n")[1] == f"{counts}, 800 tokens/s"
    assert shown(progress, 40) == "120,000/360,000 1:23:20 left 2:46:40\n415/500 questions, 800 tokens/s\n"


@pytest.mark.parametrize("width", [20, 40, 79, 80, 81, 120, 300])
def test_no_line_is_wider_than_the_terminal(tmp_path, clock, width):
    progress = under_way(tmp_path, clock, MANY, "中文" * 200, failed=2, name="documents")
    lines = shown(progress, width).split("\n")
    assert len(lines) == 3 and all(Console().measure(line).maximum < width for line in lines)


def test_a_log_gets_plain_lines_with_the_same_facts(tmp_path, clock, capsys):
    with under_way(tmp_path, clock, {Outcome.PAIR: 2}, "HTTP 500:\x1b[2J boom\r", failed=3):
        clock[0] = 5001.0
    assert capsys.readouterr().err.splitlines() == [
        "longmab: 120000/360000 steps, 5/500 questions, 3 failed, 2 pairs, 0 tokens/s, 7 retries, 5001 s, about "
        "10002 s left",
        "    rollout: 10 calls, 100 prompt + 4,000,000 new tokens",
        "    most frequent failure, 3 times: HTTP 500: [2J boom",
    ]


def test_the_time_left_is_unknown_before_the_first_step(clock):
    progress = Progress("score", 3, 3, Ledger())
    clock[0] = 61.0
    assert shown(progress, 60).split("\n")[0].endswith(" 0/3 steps 0:01:01 left ?")
    progress.skip(3)
    assert shown(progress, 60).split("\n")[0].endswith(" 0/0 steps 0:01:01 left 0:00:00")
