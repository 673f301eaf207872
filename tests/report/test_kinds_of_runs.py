"""A run of each kind, made with the stub, gives the sentence that it should."""

import json
import re

import pytest
import yaml
from aiohttp import web
from conftest import code_questions, run_settings, write_jsonl
from stub import deterministic_answer
from test_page import Page

from lf_longpo.cli import main


def sentences_of(stub, tmp_path, questions=12, until="pairs", before=None, retries=2, **longmab):
    """Runs a generation and returns the sentences at the top of its report."""
    settings = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(questions)))
    settings["longmab"] |= longmab
    settings["policy"]["max_retries"] = retries
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    main(["generate", str(tmp_path / "c.yaml"), "--stage", until])
    if before:
        before(tmp_path / "run")
        assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    block = re.search(r'<section class="verdicts".*?</section>', page, re.DOTALL)[0]
    sentences = [re.sub(r"&#39;", "'", text) for text in re.findall(r"<p>(.*?)</p>", block, re.DOTALL)]
    assert 3 <= len(sentences) <= 6
    return sentences


def test_a_good_run_names_its_pairs_and_the_next_command(stub, tmp_path):
    sentences = sentences_of(stub, tmp_path)
    made = len((tmp_path / "run/pairs.jsonl").read_text().splitlines())
    assert made >= 8
    assert sentences[0] == f"This run is finished: {made} of 12 questions gave a pair."
    assert sentences[-1].startswith(f"Next: longpo view {tmp_path / 'run'}, then longpo train ")
    starts = [json.loads(line) for line in (tmp_path / "run/starts.jsonl").read_text().splitlines()]
    assert (
        len(starts) == 2
        and starts[1]["seconds"] >= 0
        and "time of all starts" in Page(tmp_path / "run/report.html").text
    )


def test_a_run_without_a_signal_says_how_many_questions_had_none(stub, tmp_path):
    stub.answer = lambda prompt, seed: (
        deterministic_answer(prompt, seed) if "Correct answer" in prompt else "Answer: unknown"
    )
    sentences = sentences_of(stub, tmp_path)
    assert sentences[1].startswith(
        "12 of 12 questions had no reward difference, and 100% of the responses got the reward 0: use easier questions"
    )
    assert sentences[-1].startswith("Next: change the settings or the questions")


@pytest.mark.slow
def test_a_falling_reward_is_beyond_chance_and_its_caption_says_so(stub, tmp_path):
    def fall(run):
        """Rounds 0 and 1 are right, the last two are wrong."""
        rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
        write_jsonl(run / "rollouts.jsonl", [row | {"reward": float(row["round"] < 2)} for row in rows])

    sentences = sentences_of(stub, tmp_path, before=fall)
    (said,) = [sentence for sentence in sentences if "over the rounds" in sentence]
    assert said.startswith("The reward falls over the rounds from 1.000 to 0.000, beyond chance (higher in 0 and lower")
    text = Page(tmp_path / "run/report.html").text
    assert "The rewards of most questions fall, beyond chance" in text and "choose better chunks" not in text


def test_a_length_bias_is_said(stub, tmp_path):
    def long_when_right(prompt, seed):
        answer = deterministic_answer(prompt, seed)
        return f"{'The text says so. ' * 9}{answer}" if "the text says it" in answer else "Answer: no"

    stub.answer = lambda prompt, seed: (
        deterministic_answer(prompt, seed) if "Correct answer" in prompt else long_when_right(prompt, seed)
    )
    sentences = sentences_of(stub, tmp_path)
    made = len((tmp_path / "run/pairs.jsonl").read_text().splitlines())
    start = (
        f"The chosen response is longer than the rejected one in {made} of {made} pairs: length alone separates them."
    )
    assert made >= 6 and [sentence for sentence in sentences if sentence.startswith(start)]


def test_a_failing_run_names_the_cause(stub, tmp_path):
    stub.fail = lambda body: web.json_response({"error": {"message": "boom"}}, status=500)
    sentences = sentences_of(stub, tmp_path, questions=3, retries=0)
    assert re.match(r"3 of 3 questions failed: .*boom.*\. Fix the cause and run the same command again\.", sentences[1])
    assert sentences[-1].startswith("Next: fix the cause of the failures, then try them again: longpo generate ")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_run_says_what_is_unfinished_and_how_to_resume(stub, tmp_path, killed):
    def stop(run):
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").unlink()
        if not killed:
            (run / "summary.json").write_text(json.dumps(summary | {"interrupted": True, "unfinished": 4}))

    sentences = sentences_of(stub, tmp_path, before=stop)
    if killed:
        assert sentences[0].startswith("This run is not finished: it is still running, or it was stopped.")
    else:
        assert sentences[0].startswith("This run was stopped with 4 unfinished questions; ")
    assert sentences[-1].endswith(f"longpo generate {tmp_path / 'run/config.yaml'}")
