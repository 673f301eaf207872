"""`longpo evaluate judge` against scripted judges of known bias: the figures are computed by hand."""

import json
import re

import pytest
import yaml
from conftest import judged, write_jsonl
from test_evaluate import results_of, rows_of, stub_model

from lf_longpo.cli import main
from lf_longpo.evaluation.compare import compare
from lf_longpo.models.calls import _seed_of

PRICE = {"prompt": 1.0, "completion": 2.0}
# Labels: the chosen response is the longer one in 6 of 10 pairs.
LONGER = 6


def labelled(number=10):
    """Pairs; the chosen response holds the word good, and four contexts are longer than 1,024 tokens."""
    return [
        {
            "id": f"p{n}",
            "context": f"Text {n}. " + "Rain fell there. " * (400 if n >= 6 else 4),
            "query": f"Question {n}?",
            "chosen": f"good answer {n}" + " and more words of it" * (n < LONGER),
            "rejected": f"bad answer {n}" + " and more words of it" * (n >= LONGER),
        }
        for n in range(number)
    ]


def write_config(stub, tmp_path, **changes):
    config = {
        "input": str(write_jsonl(tmp_path / "pairs.jsonl", labelled())),
        "output_dir": str(tmp_path / "eval"),
        "judge": stub_model(stub) | {"price": PRICE},
        "mode": "compare",
        "tokenizer": "smollm2-135m",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config | changes))
    return str(tmp_path / "c.yaml")


def shown(prompt):
    """The two answers and the number of the question."""
    first, second = re.search(r"Answer 1:\n(.*?)\n\nAnswer 2:\n(.*?)\n\n", prompt, re.DOTALL).groups()
    return first, second, int(re.search(r"Question (\d+)\?", prompt)[1])


def prefers_longer(prompt, seed):
    first, second, _ = shown(prompt)
    return f"Reason. [[{1 if len(first) > len(second) else 2}]]"


def right_on(numbers, unstable=()):
    """Prefers the label of these pairs; in the second run, it also prefers the label of `unstable` pairs."""
    seeds = {_seed_of(f"42/judge/p{n} (run 2)/0") for n in unstable}

    def answer(prompt, seed):
        first, _, number = shown(prompt)
        return f"Reason.\n[[{1 if first.startswith('good') == (number in numbers or seed in seeds) else 2}]]"

    return answer


def test_a_judge_that_prefers_the_longer_response(stub, tmp_path, capsys):
    stub.answer = prefers_longer
    config = write_config(stub, tmp_path)
    assert main(["evaluate", "judge", config]) == 0
    results = results_of(tmp_path)
    found = {name: results[name] for name in results["metrics"]}
    assert found == {
        "agreement": 0.6,
        "tie": 0.0,
        "prefers_longer": 1.0,
        "wrongly_longer": 1.0,
        "first": 0.5,
        "agreed": 1.0,
    }
    low, high = results["intervals"]["agreement"]
    assert 0.2 <= low < 0.6 < high <= 1.0
    control = results["length_controlled"]
    assert (control["agreement"], control["interval"]) == (0.5, [0.5, 0.5])
    assert control["chosen_longer"] == {"questions": 6, "agreement": 1.0}
    assert control["chosen_shorter"] == {"questions": 4, "agreement": 0.0}
    bins = [(row["from"], row["to"], row["questions"], row["agreement"]) for row in results["lengths"]]
    assert bins == [(0, 1024, 6, 1.0), (1024, 4096, 4, 0.0)]
    per = results["per_decision"]
    assert per["calls"] == 2.0 == stub.chats / 10
    used = results["calls"]["judge"]
    assert per["prompt_tokens"] == used["prompt_tokens"] / 10
    assert per["cost"] == pytest.approx((used["prompt_tokens"] + 2 * used["completion_tokens"]) / 1e7)
    printed = capsys.readouterr().out
    assert "Length-controlled agreement: 50.0 (50.0-50.0)" in printed and "A decision takes 2.0 calls" in printed

    # A lost row is decided again from the finished calls.
    made, path = stub.chats, tmp_path / "eval/predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    assert main(["evaluate", "judge", config]) == 0
    assert stub.chats == made
    again = results_of(tmp_path)
    for name in ("calls", "cost", "per_decision"):  # the same costs, added in another order
        assert again.pop(name) == pytest.approx(results.pop(name)) if name == "cost" else again.pop(name)
        results.pop(name, None)
    assert again | {"seconds": 0} == results | {"seconds": 0}


def test_a_judge_that_prefers_the_first_response(stub, tmp_path):
    stub.answer = lambda prompt, seed: "Reason. [[1]]"
    assert main(["evaluate", "judge", write_config(stub, tmp_path)]) == 0
    results = results_of(tmp_path)
    found = [results[name] for name in ("first", "agreed", "tie", "agreement", "prefers_longer")]
    assert found == [1.0, 0.0, 1.0, 0.5, 0.5]


def test_ties_and_unreadable_verdicts(stub, tmp_path, capsys):
    """By hand: pairs 0 to 2 are ties, pair 3 has no readable verdict, the others are right."""

    def answer(prompt, seed):
        number = shown(prompt)[2]
        return "[[tie]]" if number < 3 else "no verdict" if number == 3 else right_on(range(10))(prompt, seed)

    stub.answer = answer
    assert main(["evaluate", "judge", write_config(stub, tmp_path)]) == 0
    results = results_of(tmp_path)
    assert (results["unjudged"], results["decisions"], results["questions"]) == (1, 10, 10)
    assert results["tie"] == pytest.approx(3 / 9) and results["agreement"] == pytest.approx((1.5 + 6) / 9)
    row = next(row for row in rows_of(tmp_path) if row["id"] == "p3")
    assert row["agreement"] is None and row["choices"] == [None]
    assert row["details"][0]["analyses"] == ["no verdict", "no verdict"]
    assert results["calls"]["judge"]["calls"] == 2 * 9 + 2 * 5
    assert "1 of 10 decisions have no readable verdict" in capsys.readouterr().out


@pytest.mark.slow
def test_stability_and_the_comparison_of_two_judges(stub, tmp_path, capsys):
    """By hand: the first judge is right on 7 of 10 pairs, and on 2 more in its second run; the second one on 4."""
    stub.answer = right_on(range(7), unstable=(8, 9))
    first = write_config(stub, tmp_path, output_dir=str(tmp_path / "first"), runs=2)
    assert main(["evaluate", "judge", first]) == 0
    results = json.loads((tmp_path / "first/results.json").read_text())
    assert results["stable"] == 0.8 and results["agreement"] == pytest.approx((7 + 9) / 20)
    assert results["decisions"] == 20 and results["per_decision"]["calls"] == 2.0
    stub.answer = right_on(range(4))
    second = write_config(stub, tmp_path, output_dir=str(tmp_path / "second"))
    assert main(["evaluate", "judge", second, "judge.system=Be strict."]) == 0
    comparison = compare(tmp_path / "first", tmp_path / "second")
    differences = {row.metric: row for row in comparison.differences}
    assert comparison.questions == 10 and "stable" not in differences
    row = differences["agreement"]
    assert row.means == pytest.approx((0.8, 0.4)) and row.difference.mean == pytest.approx(-0.4)
    assert -0.7 <= row.difference.low < -0.4 < row.difference.high <= -0.1
    capsys.readouterr()
    assert main(["evaluate", "compare", str(tmp_path / "first"), str(tmp_path / "second")]) == 0
    assert "agreement" in capsys.readouterr().out


def test_the_budget_holds_and_the_estimate_counts_the_calls(stub, tmp_path, capsys):
    stub.answer = prefers_longer
    config = write_config(stub, tmp_path, runs=2)
    assert main(["evaluate", "judge", config, "--estimate"]) == 0
    assert stub.chats == 0 and re.search(r"judge +│ +40 ", capsys.readouterr().out)
    assert main(["evaluate", "judge", config, "max_cost=0.02"]) == 1
    stopped = stub.chats
    assert 0 < stopped < 40 and not (tmp_path / "eval/results.json").exists()
    assert main(["evaluate", "judge", config, "max_cost=1"]) == 0
    assert stub.chats == 40 and max(stub.requests.values()) == 1


@pytest.mark.slow
def test_longrewards_dimensions(stub, tmp_path):
    """By hand: helpfulness agrees with all labels, logicality ties, completeness prefers the rejected response."""

    def answer(prompt, seed):
        case = prompt[prompt.rindex("--- The case") :]
        if case.endswith("Statements:"):
            return "<statement>It is so.</statement>"
        if "<claim>" in case or not case.endswith("Analysis:"):
            return judged(prompt, seed)
        good = "good answer" in case
        stage = next(name for name in ("helpful", "logical", "complete") if name in prompt[:600].lower())
        return f"So.\n[[{ {'helpful': 9 if good else 1, 'logical': 5, 'complete': 3 if good else 4}[stage] }]]"

    stub.answer = answer
    server = {"backend": "openai", "model": "e", "base_url": stub.base_url, "api_key_env": "STUB_KEY"}
    config = write_config(stub, tmp_path, mode="score", embedder=server, runs=2)
    assert main(["evaluate", "judge", config]) == 0
    results = results_of(tmp_path)
    names = ("agreement", "helpfulness", "logicality", "faithfulness", "completeness", "stable")
    assert [results[name] for name in names] == [1.0, 1.0, 0.5, 0.5, 0.0, 1.0]
    scores = rows_of(tmp_path)[0]["details"][0]["scores"]
    assert [score["total"] for score in scores] == [(9 + 5 + 5 + 3) / 4, (1 + 5 + 5 + 4) / 4]
    assert set(results["calls"]) >= {"extract", "statements", "helpfulness", "faithfulness"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": {"backend": "reward_model", "model": "m"}}, "mode: compare needs a chat model"),
        ({"judge": {"backend": "reward_model", "model": "m", "adapter": "a"}}, "adapter: a reward model takes none"),
        ({"runs": 0}, "runs"),
        ({"max_cost": 1, "judge": {"model": "m"}}, "max_cost needs the price of m"),
    ],
)
def test_settings_that_cannot_work(stub, tmp_path, capsys, changes, message):
    assert main(["evaluate", "judge", write_config(stub, tmp_path, **changes)]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "eval").exists()


@pytest.mark.parametrize("command", [["evaluate", "winrate"], ["evaluate", "longbench"], ["generate"]])
def test_a_reward_model_is_refused_where_text_is_needed(tmp_path, capsys, command):
    reward = {"backend": "reward_model", "model": "m"}
    config = {"judge": reward, "output_dir": "o", **({"method": "longreward"} if command == ["generate"] else {})}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main([*command, str(tmp_path / "c.yaml")]) == 2
    assert "judge: backend: reward_model gives one number for a response" in capsys.readouterr().err
