"""LongBench, LongBench-Chat and win rates against a scripted judge, with means computed by hand."""

import json
import re
from collections import Counter

import pytest
from conftest import write_jsonl
from stub import Stub
from test_evaluate import results_of, rows_of, stub_model, write_config

from lf_longpo.cli import main
from lf_longpo.evaluation.automatic import qa_f1_zh, rouge_l, rouge_l_zh

PRICE = {"prompt": 1.0, "completion": 2.0}
GREEDY = {"samples": 1, "sampling": {"temperature": 0.0, "max_new_tokens": 64}}


def judge(stub):
    return stub_model(stub) | {"model": "stub-model", "price": PRICE}


def longbench_row(name, number, query, answers):
    return {
        "_id": f"{name}-{number}",
        "dataset": name,
        "input": query,
        "context": f"Document {number} of {name}.",
        "answers": answers,
        "length": 4,
        "language": "en",
        "all_classes": None,
    }


def write_longbench(tmp_path):
    """Two QA sets and one for summaries, in LongBench's own format, with another set that is not evaluated."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(
        folder / "hotpotqa.jsonl",
        [longbench_row("hotpotqa", 0, "Who?", ["Ann", "Ann Lee"]), longbench_row("hotpotqa", 1, "Where?", ["Rome"])],
    )
    write_jsonl(folder / "qasper.jsonl", [longbench_row("qasper", 0, "Why?", ["because"])])
    write_jsonl(
        folder / "gov_report.jsonl",
        [longbench_row("gov_report", 0, "", ["the budget grew"]), longbench_row("gov_report", 1, "", ["taxes fell"])],
    )
    write_jsonl(folder / "lcc.jsonl", [longbench_row("lcc", 0, "", ["x = 1"])])
    # LongBench-E: other questions of the same sets.
    write_jsonl(folder / "hotpotqa_e.jsonl", [longbench_row("hotpotqa", 7, "When?", ["now"])])
    return folder


def scripted():
    """Answers and verdicts that the means below are computed from."""
    asked = Counter()

    def answer(prompt, seed):
        if "double brackets" not in prompt:
            by_question = {"Who?": "Ann", "Where?": "in Paris", "Why?": "because it rained"}
            return next((text for query, text in by_question.items() if query in prompt), "the budget grew [[5]]")
        reference = re.search(r"Reference (?:answer|summary):\n(.*)", prompt)[1]
        asked[reference] += 1
        return {
            "Ann": "The same name. [[2]]",
            "Ann Lee": "Near enough.\n[[3]]",
            "Rome": "No rating from me.",  # never readable
            "because": "It is off the scale. [[9]]" if asked[reference] < 3 else "Half. [[2]]",
            "the budget grew": "The summary says [[5]] itself, I say otherwise.\n[[4]]",
            "taxes fell": "Nothing of it.\n[[1]]",
        }[reference]

    return answer


def test_longbench_means_by_hand(stub, tmp_path, capsys):
    stub.answer = scripted()
    folder = write_longbench(tmp_path)
    config = write_config(stub, tmp_path, input=str(folder), judge=judge(stub), max_failure_rate=0.3, **GREEDY)
    assert main(["evaluate", "longbench", config]) == 0
    results = results_of(tmp_path)
    sets = {name: (row["questions"], row["judge"], row["automatic"]) for name, row in results["sets"].items()}
    assert sets["gov_report"] == (2, pytest.approx((0.75 + 0.0) / 2), pytest.approx(results_by_rouge(), abs=1e-6))
    # The best reference counts; the question without a verdict counts for the automatic metric alone.
    assert sets["hotpotqa"] == (2, 1.0, pytest.approx((1.0 + 0.0) / 2))
    assert sets["qasper"] == (1, 0.5, pytest.approx(2 * 1 / (3 + 1)))
    assert results["unjudged"] == 1
    assert {name: row["judge"] for name, row in results["groups"].items()} == {
        "single-doc QA": 0.5,
        "multi-doc QA": 1.0,
        "summarisation": pytest.approx(0.375),
    }
    assert results["judge"] == pytest.approx((0.375 + 1.0 + 0.5) / 3)
    rows = {row["id"]: row for row in rows_of(tmp_path)}
    assert rows["hotpotqa-1"]["judge"] is None
    assert rows["hotpotqa-1"]["verdicts"][0]["analysis"] == "No rating from me."
    # Every call of the judge is counted and priced, those in vain too: five about Rome, two of three about the reason.
    judged = results["calls"]["judge"]
    assert judged["calls"] == stub.chats - 5 == 2 + 5 + 2 + 3
    assert results["cost"] == pytest.approx(
        (judged["prompt_tokens"] * PRICE["prompt"] + judged["completion_tokens"] * PRICE["completion"]) / 1e6
    )
    printed = capsys.readouterr().out
    assert "single-doc QA" in printed and "1 answers without a readable verdict" in printed and "cost" in printed

    # Carried on, nothing is asked again; a torn row is scored again from the finished calls.
    made, path = stub.chats, tmp_path / "eval/predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert main(["evaluate", "longbench", config]) == 0
    assert stub.chats == made
    again = results_of(tmp_path)
    calls = again.pop("calls")
    assert calls == {stage: pytest.approx(totals) for stage, totals in results.pop("calls").items()}
    assert again.pop("cost") == pytest.approx(results.pop("cost"))  # the same costs, added in another order
    assert again | {"seconds": 0} == results | {"seconds": 0}


def test_thoughts_change_no_score(stub, tmp_path):
    plain = scripted()
    stub.answer = lambda prompt, seed: f"<think>Is it Bob? [[1]]</think>\n{plain(prompt, seed)}"
    folder = write_longbench(tmp_path)
    config = write_config(stub, tmp_path, input=str(folder), judge=judge(stub), max_failure_rate=0.3, **GREEDY)
    assert main(["evaluate", "longbench", config]) == 0
    results = results_of(tmp_path)
    assert (results["sets"]["hotpotqa"]["judge"], results["sets"]["hotpotqa"]["automatic"]) == (1.0, 0.5)
    assert results["judge"] == pytest.approx((0.375 + 1.0 + 0.5) / 3) and results["unfinished_thoughts"] == 0
    rows = {row["id"]: row for row in rows_of(tmp_path)}
    assert rows["hotpotqa-0"]["prediction"] == "Ann" and rows["hotpotqa-0"]["thoughts"] == ["Is it Bob? [[1]]"]


def results_by_rouge():
    """By hand: all words of the first reference are among the four of the summary, none of the second."""
    precision, recall = 3 / 4, 3 / 3
    return (2 * precision * recall / (precision + recall) + 0.0) / 2


def test_longbench_without_a_judge(stub, tmp_path):
    stub.answer = scripted()
    folder = write_longbench(tmp_path)
    config = write_config(stub, tmp_path, input=str(folder), judge=None, **GREEDY)
    assert main(["evaluate", "longbench", config]) == 0
    results = results_of(tmp_path)
    assert stub.chats == 5 and results["metrics"] == ["automatic"] and "judge" not in results["sets"]["qasper"]


def test_longreward_own_aggregated_file_is_read(stub, tmp_path, capsys):
    stub.answer = scripted()
    rows = [
        {"idx": 0, "dataset": "qasper", "context": "A document.", "query": "Why?", "answer": ["because"]},
        {"idx": 1, "dataset": "hotpotqa", "context": "Another.", "query": "Who?", "answer": ["Ann"]},
    ]
    path = tmp_path / "longbench.json"
    path.write_text(json.dumps(rows))
    assert main(["evaluate", "longbench", write_config(stub, tmp_path, input=str(path), judge=None, **GREEDY)]) == 0
    assert {name: row["automatic"] for name, row in results_of(tmp_path)["sets"].items()} == {
        "qasper": pytest.approx(0.5),
        "hotpotqa": 1.0,
    }
    path.write_text(json.dumps([rows[0] | {"dataset": "hotpot"}]))
    assert main(["evaluate", "longbench", write_config(stub, tmp_path, input=str(path), judge=None, **GREEDY)]) == 2
    assert f"{path}, record 1: LongBench has no set 'hotpot'" in capsys.readouterr().err


def test_the_other_selection_alone_and_what_is_asked_where_nothing_is(stub, tmp_path):
    stub.answer = scripted()
    rows = [
        longbench_row("hotpotqa", 0, "", ["Ann"]) | {"query": "Who?"},
        longbench_row("gov_report", 1, " ", ["the budget grew"]),
    ]
    path = write_jsonl(tmp_path / "hotpotqa_e.jsonl", rows)
    assert main(["evaluate", "longbench", write_config(stub, tmp_path, input=str(path), judge=None, **GREEDY)]) == 0
    assert {name: row["questions"] for name, row in results_of(tmp_path)["sets"].items()} == {
        "hotpotqa": 1,
        "gov_report": 1,
    }
    assert results_of(tmp_path)["sets"]["hotpotqa"]["automatic"] == 1.0


@pytest.mark.slow
def test_automatic_metrics_by_hand():
    assert rouge_l("the cat sat", "the cat ran") == pytest.approx(2 / 3)
    assert rouge_l("...", "the cat") == 0.0
    words = [f"w{n}" for n in range(1500)]  # deeper than Python recurses by default
    assert rouge_l(" ".join(words), " ".join(words)) == pytest.approx(1.0)
    assert rouge_l_zh("我们 今天 开会", "我们 明天 开会") > 0.5
    assert qa_f1_zh("北京。", "北京") == 1.0
    assert qa_f1_zh("上海", "北京") == 0.0


def write_chat(tmp_path):
    document = "The document of the test.\n\nIt has two paragraphs."
    cases = [
        {"idx": number, "query": query, "prompt": f"{document}\n\n{query}", "answer": answer}
        for number, (query, answer) in enumerate([("What is it?", "a test"), ("How long?", "short")], 1)
    ]
    shots = [[{"answer": f"shot {n}{k}", "score": 3 * k + 1} for k in range(3)] for n in range(2)]
    (tmp_path / "test_cases.json").write_text(json.dumps(cases))
    (tmp_path / "few_shots.json").write_text(json.dumps(shots))
    return {"input": str(tmp_path / "test_cases.json"), "few_shots": str(tmp_path / "few_shots.json")}


def test_longbench_chat_by_hand(stub, tmp_path):
    seen = []

    def answer(prompt, seed):
        seen.append(prompt)
        if "double brackets" not in prompt:
            return "an exam" if prompt.endswith("What is it?") else "long"
        return "Fair. [[7]]" if "an exam" in prompt else "Wrong. [[2]]"

    stub.answer = answer
    config = write_config(stub, tmp_path, judge=judge(stub), **write_chat(tmp_path), **GREEDY)
    assert main(["evaluate", "longbench-chat", config]) == 0
    results = results_of(tmp_path)
    assert results["judge"] == pytest.approx((0.7 + 0.2) / 2)  # 45 on the published scale
    (asked,) = [prompt for prompt in seen if prompt.startswith("The document") and "What is it?" in prompt]
    assert asked == "The document of the test.\n\nIt has two paragraphs.\n\nWhat is it?"
    (judged,) = [prompt for prompt in seen if "an exam" in prompt]
    assert "rated 1:\nshot 00" in judged and "rated 7:\nshot 02" in judged and "shot 10" not in judged
    assert "Reference answer:\na test\n" in judged


@pytest.mark.parametrize(
    ("shots", "said"),
    [
        ("[", "cannot be read as JSON"),
        ("[]", "must hold a list"),
        ('[[{"answer": "a", "score": 11}]]', 'list 1: each rated answer must be {"answer": text, "score": 1 to 10}'),
        ('[[{"answer": "a", "score": 5}]]', "test_cases.json, record 2: the field idx must be a number from 1 to 1"),
    ],
)
def test_rated_answers_that_cannot_be_used_are_named(stub, tmp_path, capsys, shots, said):
    given = write_chat(tmp_path)
    (tmp_path / "few_shots.json").write_text(shots)
    assert main(["evaluate", "longbench-chat", write_config(stub, tmp_path, judge=judge(stub), **given, **GREEDY)]) == 2
    assert said in capsys.readouterr().err
    assert stub.chats == 0


@pytest.mark.parametrize("thought", ["", "<think>Draft: [[1]]</think>\n"])
def test_win_rate_by_hand(stub, tmp_path, thought):
    """Question 0: the good answer wins in both orders; 1: the first one wins in both; 2: one of the verdicts is a tie;
    3: the answers are equal, and no call is made; 4: one verdict cannot be read."""
    questions = [
        {"id": f"q{n}", "question": f"Question {n}?", "answer": "gold", "context": f"Text {n}."} for n in range(5)
    ]

    def verdict(number, good_first):
        if number == 4 and good_first:
            return "They differ."
        better = "1" if good_first else "2"
        return f"Reason.\n[[{ {0: better, 1: '1', 2: 'tie' if good_first else better, 4: better}[number] }]]"

    def answer(prompt, seed):
        if "double brackets" not in prompt:
            return "same" if "Question 3" in prompt else "good"
        number = int(re.search(r"Question (\d)\?", prompt)[1])
        return verdict(number, prompt.index("\ngood") < prompt.index("\nbad"))

    stub.answer = lambda prompt, seed: thought + answer(prompt, seed)
    with Stub(lambda prompt, seed: "same" if "Question 3" in prompt else "bad") as other:
        given = {"input": str(write_jsonl(tmp_path / "duel.jsonl", questions)), "against": stub_model(other), **GREEDY}
        config = write_config(stub, tmp_path, judge=judge(stub), max_failure_rate=0.5, **given)
        assert main(["evaluate", "winrate", config]) == 0
    results = results_of(tmp_path)
    rates = {row["id"]: row["win_rate"] for row in rows_of(tmp_path)}
    assert rates == {"q0": 1.0, "q1": 0.5, "q2": 0.75, "q3": 0.5, "q4": None}
    assert results["win_rate"] == pytest.approx(2.75 / 4) and results["unjudged"] == 1
    assert (results["win"], results["tie"], results["loss"], results["agreed"]) == (0.25, 0.75, 0.0, 0.5)
    low, high = results["intervals"]["win_rate"]
    assert 0.5 <= low < 2.75 / 4 < high <= 1.0
    assert results["calls"]["judge"]["calls"] == 2 * 3 + 5 + 1


def test_several_samples_and_a_verdict_in_vain(stub, tmp_path):
    """By hand: of each question's two samples one has a verdict; the mean is over those that have one."""

    def answer(prompt, seed):
        if "double brackets" not in prompt:
            return f"answer {'odd' if seed % 2 else 'even'}"
        return "[[3]]" if "answer odd" in prompt else "no idea"

    stub.answer = answer
    rows = [longbench_row("musique", n, f"Q{n}?", ["gold"]) for n in range(12)]
    config = write_config(stub, tmp_path, input=str(write_jsonl(tmp_path / "musique.jsonl", rows)), judge=judge(stub))
    assert main(["evaluate", "longbench", config, "samples=2"]) == 1  # too many without a verdict
    results = results_of(tmp_path)
    ratings = [row["judge"] for row in rows_of(tmp_path)]
    assert results["unjudged"] == ratings.count(None) > 0
    assert results["judge"] == 1.0


@pytest.mark.parametrize(("name", "changes"), [("longbench", {}), ("longbench-chat", {}), ("winrate", {})])
def test_the_estimate_counts_the_judges_calls(stub, tmp_path, capsys, name, changes):
    stub.answer = lambda prompt, seed: "Good. [[2]]" if "double brackets" in prompt else f"answer {seed % 1000}"
    if name == "longbench":
        changes = {"input": str(write_longbench(tmp_path))}
    elif name == "longbench-chat":
        changes = write_chat(tmp_path)
    else:
        rows = [{"id": f"q{n}", "question": f"Q{n}?", "answer": "gold", "context": f"Text {n}."} for n in range(5)]
        changes = {"input": str(write_jsonl(tmp_path / "duel.jsonl", rows)), "against": stub_model(stub)}
    config = write_config(stub, tmp_path, judge=judge(stub), **changes, **GREEDY)
    assert main(["evaluate", name, config, "--estimate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = {}
    for line in lines:
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if cells and cells[1].isdigit():
            expected[cells[0]] = int(cells[1])
    assert stub.chats == 0
    assert main(["evaluate", name, config]) == 0
    made = {stage: row["calls"] for stage, row in results_of(tmp_path)["calls"].items()}
    assert {stage: expected[stage] for stage in made} == made


def test_a_judge_is_read_by_its_probabilities(stub, tmp_path):
    stub.weights = lambda prompt, said: {"1": 0.5, "3": 0.5}
    stub.answer = lambda prompt, seed: "So. [[1]]" if "double brackets" in prompt else "an answer"
    rows = [longbench_row("musique", n, f"Q{n}?", ["gold"]) for n in range(3)]
    config = write_config(stub, tmp_path, input=str(write_jsonl(tmp_path / "musique.jsonl", rows)), **GREEDY)
    assert main(["evaluate", "longbench", config, f"judge={json.dumps(judge(stub))}", "judging.rating=expected"]) == 0
    assert results_of(tmp_path)["judge"] == pytest.approx(0.5)
