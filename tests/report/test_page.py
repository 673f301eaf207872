"""The report: its contents, during a run and after it, and that no text becomes markup."""

import json
import re
import sqlite3
from html.parser import HTMLParser

import pytest
import yaml
from conftest import code_questions, judged, run_settings, write_jsonl
from stub import Stub

from lf_longpo.cli import main

HOSTILE = (
    '<script>alert(1)</script><img src=x onerror=alert(2)> &lt;b&gt; "\u202egnp.exe\u2066 \x1b[2J </pre></details>'
)


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def write_run(tmp_path, stub, pairs=3, **changes):
    """A run's folder, as a killed run leaves it."""
    settings = run_settings(stub, tmp_path, tmp_path / "q.jsonl") | changes
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    rows = [
        {
            "id": f"q{n}", "input": f"Question {n}?", "answer": "gold", "prompt": f"Text {n}. Question {n}?",
            "chosen": "A longer answer.", "rejected": "Short.", "chosen_reward": 1.0, "rejected_reward": n / pairs,
            "chosen_index": 1, "rejected_index": 0,
        }
        for n in range(pairs)
    ]  # fmt: skip
    return run, rows


@pytest.fixture
def server(key):
    with Stub() as stub:
        yield stub


def test_hostile_text_stays_text(tmp_path, server):
    run, rows = write_run(tmp_path, server)
    rows[0] |= {"chosen": HOSTILE, "rejected": "x" * 2**20, "input": HOSTILE, "id": HOSTILE, "prompt": HOSTILE * 1000}
    write_jsonl(run / "pairs.jsonl", rows)
    write_jsonl(run / "failures.jsonl", [{"id": HOSTILE, "reason": HOSTILE, "last_words": HOSTILE}])
    assert main(["report", str(run)]) == 0
    page = Page(run / "report.html")
    assert not {"script", "img"} & page.tags and not [name for name in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "onerror=alert(2)" in page.text and "&lt;b&gt;" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", page.source) and "⟨U+202E⟩gnp.exe⟨U+2066⟩" in page.text
    assert "1,042,576 characters not shown" in page.text and len(page.source) < 500_000
    assert not re.search(r'(?:src|href)="?(?:http|//)', page.source)  # nothing is fetched


@pytest.mark.slow
def test_a_longmab_run_is_reported_during_and_after_the_run(tmp_path, server, capsys):
    questions = write_jsonl(tmp_path / "q.jsonl", code_questions(8))
    settings = run_settings(server, tmp_path, questions)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    assert main(["generate", str(tmp_path / "c.yaml"), "--stage", "rollout"]) == 0
    run = tmp_path / "run"
    (run / "summary.json").unlink()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    page = Page(run / "report.html")
    assert "it is still running, or it was stopped" in page.text and "There are no pairs yet." in page.text
    assert "Does the bandit learn?" in page.text and page.source.count("<svg") == 4

    assert main(["generate", str(tmp_path / "c.yaml")]) == 0
    page = Page(run / "report.html")
    assert "This run is finished:" in page.text
    summary = json.loads((run / "summary.json").read_text())
    assert f"pairs{summary['pairs']}questions8" in page.text.replace("\n", "")
    assert f"{summary['mean_reward']:.3f}" in page.text and "prompt with chunks" in page.text
    assert "seconds per call" in page.text and f"{summary['calls']['rollout']['calls']}" in page.text
    assert str(run / "report.html") in capsys.readouterr().out
    # The same run gives the same page.
    before = page.source
    assert main(["report", str(run)]) == 0 and (run / "report.html").read_text(encoding="utf-8") == before


@pytest.mark.slow
def test_a_longreward_run_shows_its_dimensions(tmp_path, key):
    with Stub(judged) as stub:
        questions = write_jsonl(tmp_path / "q.jsonl", code_questions(4))
        settings = run_settings(stub, tmp_path, questions) | {"method": "longreward"}
        settings["judge"] = settings["policy"]
        settings["longreward"] = {"num_samples": 4, "min_responses": 2, "chunk_size": 400}
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if k != "longmab"}))
        assert main(["generate", str(tmp_path / "c.yaml")]) == 0
    page = Page(tmp_path / "run/report.html")
    for name in ("helpfulness", "logicality", "faithfulness", "completeness"):
        assert re.search(rf"{name} \d\.\d", page.text)
    assert "responses scored16" in page.text.replace("\n", "")


def test_lengths_that_separate_the_responses_give_a_warning(tmp_path, server):
    run, rows = write_run(tmp_path, server, pairs=25)
    write_jsonl(run / "pairs.jsonl", rows)
    main(["report", str(run)])
    page = Page(run / "report.html")
    assert "The chosen response is longer than the rejected one in 25 of 25 pairs: length alone" in page.text
    # The largest gap first, the smallest first; no pair stands twice.
    shown = re.findall(r"<h3[^>]*>(Question \d+\?)", page.source)
    assert len(shown) == len(set(shown)) == 25 and shown[0] == "Question 0?" and shown[13] == "Question 24?"


def test_odd_values_and_old_files_do_not_stop_a_report(tmp_path, server, capsys):
    policy = run_settings(server, tmp_path, tmp_path / "q")["policy"]
    run, rows = write_run(tmp_path, server, policy=policy | {"base_url": "https://bob:s3cret@gw.example/v1?key=abc"})
    rows[0] |= {"chosen_reward": 0.30000000000000004, "rejected_reward": 0.0}
    rows[1] |= {"chosen_reward": 0.3, "rejected_reward": 0.0}
    rows[2] |= {"chosen_reward": float("nan")}
    write_jsonl(run / "pairs.jsonl", rows)
    with sqlite3.connect(run / "calls.sqlite") as db:
        db.execute("CREATE TABLE calls (stage TEXT, prompt_tokens INTEGER, completion_tokens INTEGER)")
        db.execute("INSERT INTO calls VALUES ('probe', 7, 1)")
    db.close()
    assert main(["report", str(run)]) == 0
    page = Page(run / "report.html")
    assert "s3cret" not in page.source and "key=abc" not in page.source and "https://gw.example/v1" in page.text
    assert "probe171" in page.text.replace("\n", "")


def test_a_folder_without_a_run_is_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run: config.yaml is missing" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("benchmark: longqa\n")
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a config of longpo generate" in capsys.readouterr().err
