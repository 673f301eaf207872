"""What commands print at the end of a run that is not finished."""

import os
import signal

import pytest
from rich.console import Console

from lf_longpo.cli.run_output import print_unfinished
from lf_longpo.engine.ending import ending

COMMAND = "longpo generate 'my run.yaml' max_cost=2 seed=7"


def printed(unfinished, cost, interrupted=False, max_cost=2.0):
    console = Console(width=500)
    summary = {"unfinished": unfinished, "interrupted": interrupted, "cost": cost}
    with console.capture() as capture:
        print_unfinished(console, max_cost, summary, 12, COMMAND)
    return capture.get().splitlines()


def test_a_spent_budget_names_the_command_with_a_budget_for_all_questions():
    stopped, cost, following = printed(9, 1.937)
    assert stopped.startswith("Stopped before the cost exceeded max_cost = 2; 9 of 12 questions are unfinished.")
    assert cost == "At the cost so far, all questions cost about 7.8."
    assert following == "Next: longpo generate 'my run.yaml' seed=7 max_cost=7.8"


def test_the_budget_that_is_named_is_above_the_one_that_was_too_small():
    assert printed(1, 1.9)[-1].endswith(" max_cost=2.2")  # 12/11 of the cost would be 2.07
    assert printed(1, 0.0231, max_cost=0.0)[-1].endswith(" max_cost=0.026")


def test_without_a_finished_question_the_cost_of_all_is_unknown():
    assert printed(12, 1.9)[1:] == ["Next: longpo generate 'my run.yaml' seed=7 max_cost=COST"]


def test_the_end_of_an_interrupted_or_finished_run():
    assert printed(5, 1.0, interrupted=True) == ["Interrupted: 5 of 12 questions are unfinished."]
    assert printed(0, 1.0) == []


def test_one_signal_does_not_disturb_the_registration_and_a_second_one_ends_it(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with ending():
        os.kill(os.getpid(), signal.SIGTERM)
    assert capsys.readouterr().err == "the run is ending; a second Ctrl-C stops at once\n"
    with pytest.raises(KeyboardInterrupt), ending():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
