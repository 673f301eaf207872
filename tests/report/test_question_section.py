"""The report's sections about questions: counts by state with reasons, and a table that stays small."""

from conftest import write_jsonl
from question_runs import longmab_run, longreward_run, question, write_run

from lf_longpo.report.question_section import question_sections
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.question_records import QuestionRecords


def sections_of(run):
    records = QuestionRecords(RunFolder(run))
    records.read_on()
    return question_sections(records)


def test_states_have_counts_and_reasons(tmp_path):
    states, questions = sections_of(longmab_run(tmp_path))
    assert states.rows == [
        ["pair", "1", ""],
        ["no reward difference", "1", ""],
        ["probe failed", "1", "the probe does not give the gold answer, although the prompt has it"],
        ["too few complete responses", "1", ""],
        ["too long for cutoff_len", "1", "1 × the training prompt does not fit pairs.cutoff_len: 900 tokens"],
        ["failed", "1", "1 × 500: boom"],
        ["unfinished", "2", "1 × 1 of 3 rounds\n1 × not begun"],
    ]
    assert questions.rows[0] == ["Which river is pair on?\npair", "3\nrewards 0.00 to 1.00", "pair"]
    assert questions.rows[-1] == ["Which river is new on?\nnew", "0", "unfinished: not begun"]
    assert f"longpo view {tmp_path / 'run'}, then Questions" in questions.notes[0]


def test_states_of_a_longreward_run_are_listed(tmp_path):
    states, questions = sections_of(longreward_run(tmp_path))
    assert [row[:2] for row in states.rows] == [
        ["pair", "1"], ["no reward difference", "2"], ["too few complete responses", "1"], ["failed", "1"],
        ["unfinished", "1"],
    ]  # fmt: skip
    assert [
        "Which river is begun on?\nbegun",
        "2\nrewards 7.00 to 7.00",
        "unfinished: 1 of 3 responses have a score",
    ] in (questions.rows)


def test_the_table_has_the_first_questions_of_each_state_and_the_number_of_the_others(tmp_path):
    failures = [{"id": f"q{n}", "reason": f"50{n % 2}: boom {n % 5 * 'x'}"} for n in range(1000, 3000)]
    run = write_run(tmp_path, "longmab", [question(f"q{n}") for n in range(3000)], failures=failures)
    states, questions = sections_of(run)
    assert states.rows == [
        ["failed", "2,000", "400 × 500: boom \n400 × 501: boom x\n400 × 500: boom xx\n2 other reasons"],
        ["unfinished", "1,000", "1,000 × not begun"],
    ]
    assert len(questions.rows) == 22
    assert questions.rows[10] == ["1,990 more", "", "failed"] and questions.rows[21] == ["990 more", "", "unfinished"]
    assert questions.rows[0][0] == "Which river is q1000 on?\nq1000"


def test_a_run_without_its_input_says_so(tmp_path):
    run = longmab_run(tmp_path, probes=[], rollouts=[], failures=[], pairs=[])
    (tmp_path / "q.jsonl").unlink()
    states, questions = sections_of(run)
    assert "the input cannot be read" in states.notes[0] and not states.rows and not questions.rows
    write_jsonl(tmp_path / "q.jsonl", [question("new")])
    assert sections_of(run)[0].rows == [["unfinished", "1", "1 × not begun"]]
