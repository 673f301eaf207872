"""The viewer: its requests, and a real browser if one is installed."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import code_questions, judged, run_settings, write_jsonl
from starlette.testclient import TestClient
from stub import Stub

from lf_longpo.cli import main
from lf_longpo.data.review import Reviews
from lf_longpo.run_folder.pair_sets import find_pair_set
from lf_longpo.viewer.app import make_app
from lf_longpo.viewer.index import PairIndex
from lf_longpo.viewer.site import SCRIPT

HOSTILE = (
    '<script>document.title="taken"</script><img src=x onerror=alert(2)> &lt;b&gt; \u202egnp.exe </pre></textarea>'
)


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def make_run(folder, method="longmab"):
    with Stub(judged) if method == "longreward" else Stub() as stub:
        settings = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(8))) | {"method": method}
        if method == "longreward":
            del settings["longmab"]
            settings |= {"judge": settings["policy"], "longreward": {"num_samples": 4, "min_responses": 2}}
        (folder / "c.yaml").write_text(yaml.safe_dump(settings))
        assert main(["generate", str(folder / "c.yaml")]) == 0
    return folder / "run"


def write_pairs(path, number, **changes):
    rows = [
        {
            "id": f"q{n}", "input": f"Question {n}?", "prompt": f"Text {n}. Question {n}?",
            "chosen": f"Good {n}, 100%_sure.", "rejected": f"Bad {n}.",
            "chosen_reward": 1.0, "rejected_reward": n / number,
        }
        for n in range(number)
    ]  # fmt: skip
    rows[0] |= changes
    return write_jsonl(path, rows)


class Open:
    """The application on a data set, without a server."""

    def __init__(self, name, dataset_dir=Path("dataset_info"), hosts=("testserver",), reviewer=""):
        pairs = find_pair_set(str(name), Path(dataset_dir))
        self.reviews = Reviews(pairs.decisions, reviewer)
        self.index = PairIndex(pairs, self.reviews.all())
        self.client = TestClient(make_app(pairs, self.index, self.reviews, list(hosts)))

    def __enter__(self):
        self.index.reader.start()
        for _ in range(200):
            if self.index.reader.whole:
                return self.client
            time.sleep(0.05)
        raise AssertionError("not read")

    def __exit__(self, *_):
        self.index.reader.stop()
        self.reviews.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def found(page):
    return [int(number) for number in re.findall(r'<tr id="pair-(\d+)"', page.text)]


def test_lists_are_searched_filtered_sorted_and_paged(tmp_path):
    with Open(write_pairs(tmp_path / "p.jsonl", 120)) as client:
        assert found(client.get("/")) == list(range(1, 51)) and "Page 1 of 3, 120 pairs" in client.get("/").text
        assert found(client.get("/?page=3")) == list(range(101, 121))
        assert found(client.get("/?text=good+7,")) == [8] and not found(client.get("/?text=9%_"))
        assert len(found(client.get("/?text=100%25_sure"))) == 50 and not found(client.get("/?text=100__sure"))
        assert found(client.get("/?sort=gap_up&page=99"))[-1] == 1
        assert found(client.get("/?least_gap=0.5&most_gap=0.52")) == [59, 60, 61]
        assert found(client.get("/?least_gap=no&sort=no&state=no&page=x")) == list(range(1, 51))
        # Previous and next stay within the filter.
        page = client.get("/pair/60?least_gap=0.5&most_gap=0.52").text
        assert 'href="/pair/59?least_gap=0.5' in page and 'href="/pair/61?least_gap=0.5' in page and "2 of 3" in page
        assert client.get("/pair/121").status_code == 404


def test_decisions_are_saved_next_to_the_data_set_and_applied_to_the_reviewed_one(tmp_path, capsys):
    path = write_pairs(tmp_path / "p.jsonl", 4)
    before = path.read_bytes()
    with Open(path) as client:
        answer = client.post("/pair/1", data={"decision": "reject"}, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/pair/2?")
        client.post("/pair/2", data={"decision": "edit", "chosen": "Better\r\nstill.", "rejected": "Bad 1."})
        client.post("/pair/3", data={"decision": "edit", "chosen": "Good 2, 100%_sure.", "rejected": "Bad 2."})
        client.post("/pair/4", data={"decision": "reject"})
        client.post("/pair/4", data={"decision": "undecided"})
        assert "must differ" in client.post("/pair/4", data={"decision": "edit", "chosen": "a", "rejected": "a"}).text
        assert client.post("/pair/4", data={"decision": "shrug"}).status_code == 400
        assert "1 accepted, 1 rejected, 1 edited, 1 undecided" in client.get("/").text
        assert found(client.get("/?state=reject")) == [1] and found(client.get("/?state=edit")) == [2]
        assert "\nBetter\nstill.</textarea>" in client.get("/pair/2?edit=chosen").text
    with Open(path) as client:  # opened again, they are there
        assert "1 accepted, 1 rejected, 1 edited, 1 undecided" in client.get("/").text
    assert path.read_bytes() == before

    register = ["register", str(path), "--name", "fine", "--reviewed", "--dataset-dir", str(tmp_path / "data")]
    assert main(register) == 0
    assert "3 pairs" in capsys.readouterr().out
    rows = rows_of(tmp_path / "data/fine.jsonl")
    assert [row["id"] for row in rows] == ["q1", "q2", "q3"] and rows[0]["chosen"] == "Better\nstill."
    assert json.loads((tmp_path / "data/dataset_info.json").read_text())["fine"]["ranking"] is True

    # Decisions belong to texts: a pair that was recreated is undecided again, and the command reports it.
    write_pairs(path, 4, chosen="Another answer.")
    assert main(register) == 2 and "already exists" in capsys.readouterr().err
    assert main([*register, "--overwrite"]) == 0
    assert "1 decisions are about pairs that no longer exist" in re.sub(r"\s+", " ", capsys.readouterr().out)
    assert [row["id"] for row in rows_of(tmp_path / "data/fine.jsonl")] == ["q0", "q1", "q2", "q3"]


def test_a_file_that_has_changed_takes_no_decision(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 3)
    with Open(path) as client:
        lines = path.read_text().splitlines()
        path.write_text("\n".join((lines[2], lines[1], lines[0])) + "\n")
        assert (
            client.get("/pair/1").status_code == client.post("/pair/1", data={"decision": "reject"}).status_code == 409
        )
        assert not (tmp_path / "p.review.jsonl").exists()


@pytest.mark.slow
def test_decisions_stay_when_a_run_ends_and_resumes(tmp_path, key):
    run = make_run(tmp_path)
    summary = (run / "summary.json").read_text()
    (run / "summary.json").unlink()
    with Open(run) as client:
        client.post("/pair/1", data={"decision": "reject"})
    (run / "summary.json").write_text(summary)
    with Open(run) as client:
        assert found(client.get("/?state=reject")) == [1]


def test_an_edited_pair_is_not_accepted_as_it_was(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 1)
    with Open(path) as client:
        client.post("/pair/1", data={"decision": "edit", "chosen": "Edited.", "rejected": "Bad 0."})
        page = client.get("/pair/1").text
        assert 'value="accept"' not in page and "Make undecided" in page


def test_half_a_character_is_shown(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 3, chosen="a \ud83d b", id="\udc00")
    with Open(path) as client:
        assert found(client.get("/")) == [1, 2, 3] and "⟨U+D83D⟩" in client.get("/pair/1").text
    assert main(["export", str(path), str(tmp_path / "out.jsonl")]) == 2 and not (tmp_path / "out.jsonl").exists()


def test_a_reviewed_data_set_keeps_the_shape_that_it_was_registered_in(tmp_path, capsys):
    write_jsonl(tmp_path / "p.jsonl", [{"q": f"Q{n}", "sys": "S", "win": "a", "lose": "b"} for n in range(2)])
    shape = {"ranking": True, "columns": {"prompt": "q", "system": "sys", "chosen": "win", "rejected": "lose"}}
    info = {"odd": {"file_name": "p.jsonl", **shape}, "sft": {"file_name": "sft.jsonl"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with Open("odd", tmp_path) as client:
        client.post("/pair/1", data={"decision": "reject"})
    register = ["register", "odd", "--reviewed", "--dataset-dir", str(tmp_path), "--name"]
    assert main([*register, "sft"]) == 2 and not (tmp_path / "sft.jsonl").exists()
    assert main([*register, "fine"]) == 0 and rows_of(tmp_path / "fine.jsonl")[0]["q"] == "Q1"
    assert json.loads((tmp_path / "dataset_info.json").read_text())["fine"] == {"file_name": "fine.jsonl", **shape}
    export = ["export", "odd", str(tmp_path / "trl.jsonl"), "--to", "trl-dpo", "--dataset-dir", str(tmp_path)]
    assert main(export) == 0
    assert rows_of(tmp_path / "trl.jsonl")[0]["prompt"] == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q0"},
    ]


def test_other_sites_cannot_decide(tmp_path):
    with Open(write_pairs(tmp_path / "p.jsonl", 2)) as client:
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        evil = client.post("/pair/1", data={"decision": "reject"}, headers={"origin": "http://evil.example"})
        assert evil.status_code == 403 and not (tmp_path / "p.review.jsonl").exists()
        own = client.post("/pair/1", data={"decision": "reject"}, headers={"origin": "http://testserver"})
        assert own.status_code == 200 and (tmp_path / "p.review.jsonl").exists()
        assert "default-src 'none'" in client.get("/pair/1").headers["content-security-policy"]


def test_hostile_text_stays_text(tmp_path):
    path = write_pairs(
        tmp_path / "p.jsonl", 2, id=HOSTILE, input=HOSTILE, prompt=HOSTILE, chosen=HOSTILE, rejected="x" * 2**20
    )
    with Open(path) as client:
        for page in (client.get("/"), client.get("/pair/1")):
            assert (
                "<script" not in page.text.replace(f"<script>{SCRIPT}</script>", "")
                and "<img" not in page.text
                and "&lt;script&gt;" in page.text
            )
        for page in (client.get("/pair/1").text, client.get("/pair/1?edit=chosen").text):
            without_editor = re.sub(r"<textarea.*?</textarea>", "", page, flags=re.DOTALL)
            assert "\u202e" not in without_editor and "⟨U+202E⟩gnp.exe" in without_editor
            assert "1,008,576 characters not shown" in re.sub("</?mark>", "", without_editor)
            assert "<img" not in page


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "no run, file or data set 'nothing'"),
        (".", "holds no run: config.yaml is missing"),
        ("sft.jsonl", "is not a data set of pairs"),
        ("p.csv", "is not a .jsonl file here"),
    ],
)
def test_what_cannot_be_viewed_is_an_error(tmp_path, capsys, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "sft.jsonl", [{"instruction": "a", "output": "b"}])
    (tmp_path / "p.csv").write_text("a,b\n")
    assert main(["view", name]) == 2
    assert said in capsys.readouterr().err


def test_messages_are_shown_and_edited_in_their_form(tmp_path):
    asked = [{"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Yes?"}]
    row = {
        "conversations": [*asked, {"from": "human", "value": "Read this. Why?"}],
        "chosen": {"from": "gpt", "value": "Because."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    path = write_jsonl(tmp_path / "p.jsonl", [row])
    with Open(path) as client:
        assert "Read this. Why?" in client.get("/").text
        client.post("/pair/1", data={"decision": "edit", "chosen": "Just so.", "rejected": "No."})
    assert main(["export", str(path), str(tmp_path / "out.jsonl"), "--reviewed"]) == 0
    assert rows_of(tmp_path / "out.jsonl")[0]["chosen"] == {"from": "gpt", "value": "Just so."}
    assert main(["export", str(path), str(tmp_path / "trl.jsonl"), "--to", "trl-dpo"]) == 0
    (made,) = rows_of(tmp_path / "trl.jsonl")
    assert [message["role"] for message in made["prompt"]] == ["user", "assistant", "user"]


def test_messages_with_tags_of_their_own_and_tools_are_shown_and_edited(tmp_path):
    row = {
        "talk": [
            {"who": "sys", "says": "Be brief."},
            {"who": "Q", "says": "Rain in Bern?", "value": "not this"},
            {"who": "call", "says": "weather(Bern)", "tool_calls": [{"name": "weather"}]},
            {"who": "result", "says": "<b>rain</b>"},
        ],
        "functions": [{"name": "weather"}],
        "good": {"who": "A", "says": "Yes.", "value": "never this"},
        "bad": {"who": "A", "says": "No."},
    }
    write_jsonl(tmp_path / "p.jsonl", [row])
    columns = {"messages": "talk", "tools": "functions", "chosen": "good", "rejected": "bad"}
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "Q", "assistant_tag": "A", "system_tag": "sys"}
    info = {"file_name": "p.jsonl", "formatting": "sharegpt", "ranking": True, "columns": columns, "tags": tags}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"talks": info}))
    with Open("talks", tmp_path) as client:
        listed, page = client.get("/").text, client.get("/pair/1").text
        client.post("/pair/1", data={"decision": "edit", "chosen": "Yes, rain.", "rejected": "No."})
    assert "Rain in Bern?" in listed and "not this" not in listed
    parts = re.findall(r'<h3>(.*?)</h3><pre dir="auto">(.*?)</pre>', page, re.DOTALL)
    assert [heading for heading, _ in parts] == [
        "Tools", "Message 1: sys", "Message 2: Q", "Message 3: call", "Message 4: result",
    ]  # fmt: skip
    assert [text for _, text in parts[1:]] == [
        "Be brief.", "Rain in Bern?", parts[3][1], "&lt;b&gt;rain&lt;/b&gt;",
    ]  # fmt: skip
    assert "weather" in parts[0][1] and parts[3][1].startswith("weather(Bern)") and "name" in parts[3][1]
    assert "Yes." in re.sub("</?mark>", "", page) and "never this" not in page
    assert main(["export", "talks", str(tmp_path / "out.jsonl"), "--reviewed", "--dataset-dir", str(tmp_path)]) == 0
    assert rows_of(tmp_path / "out.jsonl")[0]["good"] == {"who": "A", "says": "Yes, rain.", "value": "never this"}


def test_the_system_prompt_and_the_history_are_shown_as_text(tmp_path):
    row = {"q": "And of Basel?", "sys": HOSTILE, "past": [["Name a river.", "Aare & Inn"], ["Another?", None]]}
    write_jsonl(tmp_path / "p.jsonl", [row | {"win": "Rhine", "lose": "no"}, {"q": "Why?", "win": "a", "lose": "b"}])
    columns = {"prompt": "q", "system": "sys", "history": "past", "chosen": "win", "rejected": "lose"}
    info = {"talks": {"file_name": "p.jsonl", "ranking": True, "columns": columns}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with Open("talks", tmp_path) as client:
        page, plain = client.get("/pair/1").text, client.get("/pair/2").text
        assert f"{len(HOSTILE) + len('Name a river.Aare & InnAnother?And of Basel?'):,}" in client.get("/").text
    parts = re.findall(r'<h3>(.*?)</h3><pre dir="auto">(.*?)</pre>', page, re.DOTALL)
    assert parts[0][0] == "System prompt" and "&lt;script&gt;" in parts[0][1] and "<img" not in page
    assert parts[1:] == [
        ("History, turn 1: user", "Name a river."),
        ("History, turn 1: assistant", "Aare &amp; Inn"),
        ("History, turn 2: user", "Another?"),
        ("History, turn 2: assistant", ""),
        ("Prompt", "And of Basel?"),
    ]
    assert "System prompt" not in plain and "History" not in plain and '<pre dir="auto">Why?</pre>' in plain


@pytest.mark.slow
def test_evidence_is_marked_in_the_context(tmp_path, key):
    run = make_run(tmp_path)
    pair = rows_of(tmp_path / "data/codes.jsonl")[0]
    rollouts = {row["round"]: row for row in rows_of(run / "rollouts.jsonl") if row["id"] == pair["id"]}
    with Open(run) as client:
        page = client.get("/pair/1").text
    arms = rollouts[pair["chosen_index"]]["arms"]
    assert f"prompt with chunks {', '.join(str(arm + 1) for arm in arms)}" in page
    marked = "".join(re.findall(r'<span class="on chosen(?: rejected)?">(.*?)</span>', page, re.DOTALL))
    code = re.search(r"\w+\.$", pair["input"].replace("?", "."))[0][:-1]
    assert pair["chosen_reward"] < 1 or f"The code of {code} is {pair['answer']}." in marked
    whole = "".join(
        re.sub(r'<span class="label".*?</span>', "", re.search(r'<pre class="context".*?</pre>', page, re.DOTALL)[0])
    )
    assert re.sub(r"<[^>]+>", "", whole) == code_questions(8)[int(pair["id"][1:])]["context"]


def judged_as_in_the_run(client, run):
    """The list shows, sorts by and filters by the scores of both responses in one dimension."""
    scores = {row["idx"]: row["scores"]["helpfulness"] for row in rows_of(run / "scored_responses.jsonl")}
    both = [
        [scores[f"{row['id']}-{row[f'{side}_index']}"] for side in ("chosen", "rejected")]
        for row in rows_of(run.parent / "data/codes.jsonl")
    ]
    differences = {number: chosen - rejected for number, (chosen, rejected) in enumerate(both, 1)}
    page = client.get("/?sort=helpfulness_down")
    assert found(page) == sorted(differences, key=lambda number: (-differences[number], number))
    assert "<td>{:.1f}&nbsp;/&nbsp;{:.1f}</td>".format(*both[0]) in page.text
    most = max(differences.values())
    page = client.get(f"/?dimension=helpfulness&least_score={most}")
    assert found(page) == [number for number in differences if differences[number] == most]
    assert "%.3f" not in page.text and 'aria-sort="descending"' not in page.text


@pytest.mark.slow
def test_a_judges_analyses_and_passages_are_shown(tmp_path, key):
    run = make_run(tmp_path, "longreward")
    with Open(run) as client:
        page = client.get("/pair/1").text
        assert client.get("/report").status_code == 200
        judged_as_in_the_run(client, run)
    assert "Judge's scores: helpfulness" in page and "is given." in page and "50%" in page
    assert re.search(r'<a href="#passage-1">passage 1</a>', page) and 'id="passage-1"' in page
    assert re.search(r'<span class="on chosen', page)


BROWSER = shutil.which("chromium") and shutil.which("chromedriver")


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium with its driver here")
def test_a_pair_is_found_read_and_rejected_in_a_browser(tmp_path, key):
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    run = make_run(tmp_path)
    # A hostile response among them.
    data = tmp_path / "data/codes.jsonl"
    rows = rows_of(data)
    rows[1]["chosen"] = HOSTILE
    write_jsonl(data, rows)
    command = [sys.executable, "-m", "lf_longpo", "view", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
            options = webdriver.ChromeOptions()
            for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
                options.add_argument(flag)
            browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
            browser.implicitly_wait(5)
            try:
                browser.get(address)
                for _ in range(100):
                    if "so far" not in browser.page_source:
                        break
                    browser.get(address)
                assert f"{len(rows)} pairs" in browser.find_element(By.TAG_NAME, "header").text
                browser.find_element(By.NAME, "text").send_keys(rows[0]["input"])
                browser.find_element(By.CSS_SELECTOR, ".filter button").click()
                links = browser.find_elements(By.CSS_SELECTOR, "td.question a")
                assert [link.text for link in links] == [rows[0]["input"]]
                links[0].click()
                assert browser.find_element(By.CSS_SELECTOR, ".chosen pre").text == rows[0]["chosen"].strip()
                assert browser.find_elements(By.CSS_SELECTOR, "pre.context .on.chosen")
                browser.find_element(By.CSS_SELECTOR, "button[value=reject]").click()
                # It was the only pair of the list. The rest is done with keys.
                assert browser.find_element(By.CSS_SELECTOR, ".banner span").text == "Pair 1 rejected."
                assert browser.find_element(By.TAG_NAME, "h1").text == "End of the list"
                ActionChains(browser).send_keys("u").perform()
                assert browser.find_element(By.CSS_SELECTOR, "form.decision strong").text == "undecided"
                ActionChains(browser).send_keys("c").perform()
                browser.find_element(By.NAME, "comment").send_keys("rather bad", Keys.ESCAPE)
                ActionChains(browser).send_keys("r").perform()
                assert browser.find_element(By.CSS_SELECTOR, ".banner span").text == "Pair 1 rejected."
                browser.get(f"{address}pair/2")
                assert (
                    browser.title != "taken"
                    and HOSTILE[:40] in browser.find_element(By.CSS_SELECTOR, ".chosen pre").text
                )
                browser.get(f"{address}?state=reject")
                assert len(browser.find_elements(By.CSS_SELECTOR, "td.question a")) == 1
                assert "rather bad" in browser.find_element(By.CSS_SELECTOR, "table.pairs").text
            finally:
                browser.quit()
        finally:
            server.terminate()
    command = ["register", str(data), "--name", "fine", "--reviewed", "--dataset-dir", str(tmp_path / "data")]
    assert main(command) == 0
    assert [row["id"] for row in rows_of(tmp_path / "data/fine.jsonl")] == [row["id"] for row in rows[1:]]
    assert main(["export", str(run), str(tmp_path / "out.parquet"), "--reviewed", "--to", "trl-dpo"]) == 0
