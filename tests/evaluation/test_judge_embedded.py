"""`longpo evaluate judge` with the embedded model as the judge: real calls, on contexts of about 200 tokens."""

import json

import pytest
from conftest import write_jsonl
from test_judge_evaluation import results_of, rows_of

from lf_longpo.cli import main


@pytest.mark.slow
def test_the_embedded_judge(tmp_path):
    facts = [f"The code of place{n} is word{7 * n % 97}." for n in range(14)]
    rows = [
        {
            "context": " ".join(facts),
            "query": f"What is the code of place{n}?",
            "chosen": f"The code is word{7 * n % 97}.",
            "rejected": "I do not know the code." + " Nobody does." * n,
        }
        for n in range(2)
    ]
    path = write_jsonl(tmp_path / "pairs.jsonl", rows)
    judge = "{backend: transformers, model: smollm2-135m, max_concurrency: 8}"
    (tmp_path / "c.yaml").write_text(
        f"input: {path}\noutput_dir: {tmp_path / 'eval'}\njudge: {judge}\nmode: compare\nruns: 2\n"
        "judging: {analysis_tokens: 0}\n"
    )
    command = ["evaluate", "judge", str(tmp_path / "c.yaml")]
    assert main(command) == 0
    results = results_of(tmp_path)
    assert (results["questions"], results["decisions"], results["unjudged"]) == (2, 4, 0)
    # The expected verdict is read from token probabilities, so another seed changes nothing.
    assert results["stable"] == 1.0 and 0 <= results["agreement"] <= 1
    verdicts = [verdict for row in rows_of(tmp_path) for detail in row["details"] for verdict in detail["verdicts"]]
    assert len(verdicts) == 8 and all(0 < verdict < 1 for verdict in verdicts)
    calls = results["calls"]
    (tmp_path / "eval/predictions.jsonl").unlink()
    assert main(command) == 0
    assert json.loads((tmp_path / "eval/results.json").read_text())["calls"] == calls
