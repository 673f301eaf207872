"""The state of every question of a run, by value, during the run and after it."""

import csv
import json

import pytest
import yaml
from conftest import write_jsonl
from question_runs import longmab_run, longreward_run, pair, probe, question, rollout, sample, score

from lf_longpo.data.pairs import UNFIT
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.question_records import QuestionRecords
from lf_longpo.run_folder.question_states import QuestionState


def records_of(run):
    records = QuestionRecords(RunFolder(run))
    records.read_on()
    return records


def states(records):
    return {line.id: (line.state.value, line.reason) for line in records.lines()}


def change_settings(run, **changes):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    for name, value in changes.items():
        settings[name] = settings[name] | value if isinstance(value, dict) else value
    (run / "config.yaml").write_text(yaml.safe_dump(settings))


def test_states_of_a_longmab_run(tmp_path):
    records = records_of(longmab_run(tmp_path))
    assert states(records) == {
        "pair": ("pair", ""),
        "equal": ("no reward difference", "all 3 complete responses have the reward 0"),
        "probe": ("probe failed", "the probe does not give the gold answer, although the prompt has it"),
        "cut": ("too few complete responses", "1 of 3 responses are complete; a pair needs 2"),
        "long": ("too long for cutoff_len", f"{UNFIT}: 900 tokens"),
        "boom": ("failed", "500: boom"),
        "begun": ("unfinished", "1 of 3 rounds"),
        "new": ("unfinished", "not begun"),
    }
    lines = {line.id: line for line in records.lines()}
    assert [line.number for line in lines.values()] == list(range(1, 9))
    # Rewards select pairs: an answer outside the asked form has none.
    assert (lines["pair"].responses, lines["pair"].lowest, lines["pair"].highest) == (3, 0.0, 1.0)
    assert (lines["cut"].lowest, lines["cut"].highest, lines["new"].lowest) == (1.0, 1.0, None)
    rounds = records.responses("pair")
    assert [(one.index, one.reward, one.round_reward, one.arms) for one in rounds] == [
        (0, 1.0, 0.5, (0, 3)), (1, 0.0, 0.5, (1, 3)), (2, 0.0, 0.5, (2, 3))
    ]  # fmt: skip
    assert records.probe("probe")["kept"] is False and records.probe("new") is None
    assert records.question("cut").context.startswith("Basel") and records.question("gone") is None


def test_states_of_a_longreward_run(tmp_path):
    records = records_of(longreward_run(tmp_path))
    assert states(records) == {
        "pair": ("pair", ""),
        "equal": ("no reward difference", "all 3 complete responses have the reward 5"),
        "cut": ("too few complete responses", "1 of 3 responses are complete; a pair needs 2"),
        "boom": ("failed", "only 1 of 3 responses have a score; longreward.min_responses is 2"),
        "lost": ("no reward difference", "all 2 complete responses have the reward 5"),
        "begun": ("unfinished", "1 of 3 responses have a score"),
    }
    assert records.lost_responses("lost") == [("lost-2", "timed out")] and records.lost_responses("boom") == []
    assert [(one.index, one.reward) for one in records.responses("begun")] == [(0, 7.0), (1, None)]
    assert records.responses("pair")[2].details["helpfulness"]["analysis"] == "helpfulness of pair-2"


def test_a_response_that_racing_gave_up_has_no_reward_and_counts_once(tmp_path):
    scores = dict.fromkeys(("helpfulness", "logicality", "completeness"), 9)
    not_scored = {"faithfulness": "cannot be best or worst"}
    given_up = [sample(f"begun-{n}", f"Text {n}.", scores=scores, not_scored=not_scored) for n in range(3)]
    scored = [given_up[0], score("begun-0", "Text 0.", 7), score("begun-1", "Text 1.", 3)]
    run = longreward_run(tmp_path, scored_responses=scored)
    assert states(records_of(run))["begun"] == ("unfinished", "2 of 3 responses have a score")
    write_jsonl(run / "scored_responses.jsonl", [*scored[1:], given_up[2]])
    records = records_of(run)
    assert states(records)["begun"] == ("unfinished", "the pair is not made yet")
    line = records.line("begun")
    assert (line.lowest, line.highest) == (3, 7)


def test_given_responses_can_be_too_few(tmp_path):
    run = longreward_run(
        tmp_path, sampled_responses=[sample("pair-0", "a")], scored_responses=[score("pair-0", "a", 1)]
    )
    change_settings(run, responses=str(tmp_path / "given.jsonl"))
    assert states(records_of(run))["pair"] == ("too few responses", "1 given; a pair needs 2")


def test_a_pair_of_an_earlier_start_does_not_count_if_the_responses_give_none(tmp_path):
    run = longreward_run(tmp_path, pairs=[pair("cut"), pair("equal")])  # of a start that allowed truncated responses
    found = states(records_of(run))
    assert found["cut"][0] == "too few complete responses" and found["equal"][0] == "no reward difference"
    change_settings(run, pairs={"allow_truncated": True})
    assert states(records_of(run))["cut"][0] == "pair"


def test_a_difference_below_the_least_one_is_none(tmp_path):
    run = longreward_run(tmp_path)
    change_settings(run, pairs={"min_gap": 4.5})
    reason = "the largest difference is 4, below pairs.min_gap (4.5)"
    assert states(records_of(run))["pair"] == ("no reward difference", reason)


@pytest.mark.parametrize(
    ("stage", "reason"), [("pairs", "the pair is not made yet"), ("rollout", "a later stage makes the pair")]
)
def test_a_question_that_waits_for_its_pair_is_unfinished(tmp_path, stage, reason):
    run = longmab_run(tmp_path, pairs=[], failures=[])
    (run / "summary.json").write_text(json.dumps({"stage": stage}))
    found = states(records_of(run))
    assert found["pair"] == ("unfinished", reason) and found["boom"] == ("unfinished", "not begun")


def test_what_a_run_appends_is_read_and_a_torn_line_waits(tmp_path):
    run = longmab_run(tmp_path, summary=False)
    records = records_of(run)
    with (run / "probes.jsonl").open("a") as file:
        file.write(json.dumps(probe("new")) + "\n")
    line = json.dumps(rollout("new", 0, "Answer: Rhine")) + "\n"
    with (run / "rollouts.jsonl").open("a") as file:
        file.write(line[:30])
    (run / "failures.jsonl").unlink()  # the next start
    records.read_on()
    assert states(records)["new"] == ("unfinished", "0 of 3 rounds")
    assert states(records)["boom"] == ("unfinished", "not begun") and states(records)["long"][0] == "pair"
    with (run / "rollouts.jsonl").open("a") as file:
        file.write(line[30:])
    records.read_on()
    records.read_on()
    assert states(records)["new"] == ("unfinished", "1 of 3 rounds") and len(records.responses("new")) == 1


def test_only_the_rows_that_the_run_uses_are_its_questions(tmp_path):
    run = longmab_run(tmp_path)
    change_settings(run, start=1, end=3)
    assert list(states(records_of(run))) == ["equal", "probe"]


def test_questions_of_a_table(tmp_path):
    run = longmab_run(tmp_path)
    with (tmp_path / "q.csv").open("w", newline="") as file:
        rows = [question(id) for id in ("pair", "equal")]
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    change_settings(run, input=str(tmp_path / "q.csv"))
    records = records_of(run)
    assert {id: state for id, (state, _) in states(records).items()} == {
        "pair": "pair",
        "equal": "no reward difference",
    }
    assert records.question("equal").answers == ("Rhine",)


def test_without_the_input_the_journals_name_the_questions(tmp_path):
    run = longmab_run(tmp_path)
    (tmp_path / "q.jsonl").unlink()
    records = records_of(run)
    assert "q.jsonl" in records.fault and states(records)["probe"][0] == "probe failed"
    assert {"pair", "equal", "cut", "long", "begun", "probe"} <= set(states(records)) and records.line("new") is None


def test_the_end_of_a_pair_is_not_parsed_and_ids_may_need_escapes(tmp_path):
    odd = 'a "b" \\ ü'
    right, wrong = rollout(odd, 0, "Answer: Rhine"), rollout(odd, 1, "Answer: Aare")
    run = longmab_run(tmp_path, probes=[probe(odd)], rollouts=[right, wrong, wrong | {"round": 2}], failures=[])
    write_jsonl(tmp_path / "q.jsonl", [question(odd)])
    (run / "pairs.jsonl").write_text(json.dumps({"id": odd, "prompt": "x"}) + "\n")
    assert states(records_of(run)) == {odd: (QuestionState.PAIR.value, "")}
