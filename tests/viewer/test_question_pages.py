"""The pages of questions: the list, one question, and choosing the sides of a pair."""

import html
import json
import re
from pathlib import Path

import pytest
from question_runs import ANSWER, longmab_run, longreward_run, pair, question, rollout, sample, score, write_run
from test_viewer import HOSTILE, Open, own_cache, rows_of, write_pairs  # noqa: F401 - own_cache is a fixture

from lf_longpo.cli import main
from lf_longpo.data.choices import choice_key
from lf_longpo.data.review import Reviews
from lf_longpo.run_folder.pair_sets import find_pair_set
from lf_longpo.viewer.site import SCRIPT


def listed(page):
    """The ids of the questions on a list, in order."""
    return re.findall(r'href="/question\?id=(\w+)', page.text)


def text_of(page):
    plain = re.sub(r"<style.*?</style>", "", page.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", plain)))


def block(page, index):
    return re.search(rf'<section class="response[^>]*id="response-{index}".*?</section>', page.text, re.DOTALL)[0]


def decisions_of(run):
    return rows_of(find_pair_set(str(run), Path("dataset_info")).decisions)


def files_of(run):
    """The files of a run, without the decisions."""
    return {path.name: path.read_bytes() for path in run.iterdir() if not path.name.endswith(".review.jsonl")}


def test_the_list_counts_filters_searches_sorts_and_pages(tmp_path):
    run = longmab_run(tmp_path)
    with Open(run) as client:
        page = client.get("/questions")
        assert listed(page) == ["pair", "equal", "probe", "cut", "long", "boom", "begun", "new"]
        said = "8 questions: pair: 1, no reward difference: 1, probe failed: 1, too few complete responses: 1, "
        assert said + "too long for cutoff_len: 1, failed: 1, unfinished: 2." in text_of(page)
        assert "500: boom" in text_of(page) and "1 of 3 rounds" in text_of(page) and "0.00 / 1.00" in text_of(page)
        assert listed(client.get("/questions?state=unfinished")) == ["begun", "new"]
        assert listed(client.get("/questions?text=BOOM")) == ["boom"] and not listed(client.get("/questions?text=zzz"))
        assert listed(client.get("/questions?sort=spread_down"))[:2] == ["pair", "long"]
        assert listed(client.get("/questions?sort=state"))[0] == "pair"
        assert len(listed(client.get("/questions?sort=no&state=no&page=x"))) == 8
        # Previous and next stay within the filter.
        page = client.get("/question?id=begun&state=unfinished")
        assert 'href="/question?id=new&amp;state=unfinished" rel="next"' in page.text and "1 of 2" in text_of(page)
        assert client.get("/question?id=gone").status_code == 404


def test_a_list_of_many_questions_has_pages(tmp_path):
    run = write_run(tmp_path, "longmab", [question(f"q{n}") for n in range(120)])
    with Open(run) as client:
        assert len(listed(client.get("/questions"))) == 50
        page = client.get("/questions?page=3&state=unfinished")
        assert listed(page) == [f"q{n}" for n in range(100, 120)] and "Page 3 of 3, 120 questions" in text_of(page)


def test_a_longmab_question_shows_rounds_chunks_and_the_gold_answer(tmp_path):
    with Open(longmab_run(tmp_path)) as client:
        page = client.get("/question?id=pair")
        plain = client.get("/question?id=pair&chunks=1")
    first, last = block(page, 0), block(page, 2)
    assert "Round 1 · reward 1.000 · chosen" in first and 'Answer: <mark class="gold">Rhine</mark>' in first
    assert "reward 0.000" in last and "reward of the round 0.500" in last
    assert '<a href="#chunk-1">1</a>, <a href="#chunk-4">4</a>' in first
    context = re.search(r'<pre class="context".*?</pre>', page.text, re.DOTALL)[0]
    assert [found for found in re.findall(r'<mark class="gold">(.*?)</mark>', context)] == ["Rhine", "RHINE"]
    assert re.findall(r'id="(chunk-\d)"', context) == ["chunk-1", "chunk-2", "chunk-3", "chunk-4"]
    assert "Bern is on the Aare." in block(plain, 1) and "Bern is on the Aare." not in block(page, 1)
    assert "Probe (has the gold answer)" in page.text


def test_a_longreward_question_shows_scores_analyses_and_failures(tmp_path):
    with Open(longreward_run(tmp_path)) as client:
        page, lost = client.get("/question?id=pair"), client.get("/question?id=lost")
        begun = client.get("/question?id=begun")
    best = block(page, 2)
    assert "Sample 2 · reward 4.000 · chosen" in best and "helpfulness of pair-2" in best
    assert "A statement." in best and "50%" in best and "partly" in best and "Bern" in best
    assert "lost-2: timed out" in text_of(lost)
    assert "no reward" in block(begun, 1) and "<button" not in block(begun, 1)


def test_pages_of_pairs_and_questions_lead_to_each_other(tmp_path):
    with Open(longmab_run(tmp_path)) as client:
        assert 'href="/question?id=pair"' in client.get("/pair/1").text
        assert 'href="/pair/1"' in client.get("/question?id=pair").text
        for address in ("/", "/pair/1", "/questions", "/question?id=new"):
            page = client.get(address).text
            assert '<a href="/questions"' in page and '<a href="/"' in page
    with Open(write_pairs(tmp_path / "p.jsonl", 1)) as client:
        assert "/questions" not in client.get("/").text and client.get("/questions").status_code == 404


def test_two_responses_of_a_question_without_a_pair_make_one(tmp_path):
    run = longmab_run(tmp_path)
    before = files_of(run)
    with Open(run) as client:
        first = client.post("/question?id=equal", data={"side": "chosen", "index": "1"}, follow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (303, "/question?id=equal#response-1")
        page = client.get("/question?id=equal")
        assert "Choose one more response" in text_of(page) and "chosen is round 2" in text_of(page)
        assert not listed(client.get("/questions?state=pair+chosen+in+review"))
        same = client.post("/question?id=equal", data={"side": "rejected", "index": "1"})
        assert "would be the same text" in text_of(same) and 'role="alert"' in same.text
        client.post("/question?id=equal", data={"side": "rejected", "index": "2"})
        page = client.get("/question?id=equal")
        assert "Pair chosen in review" in text_of(page) and "rejected is round 3 (reward 0.00)" in text_of(page)
        assert "no higher reward" in text_of(page)
        assert listed(client.get("/questions?state=pair+chosen+in+review")) == ["equal"]
        assert "1 more chosen from questions without a pair" in text_of(client.get("/"))
    assert files_of(run) == before
    last = decisions_of(run)[-1]
    assert last.pop("change") and last == {
        "digest": choice_key("equal"), "id": "equal", "decision": "choose",
        "chosen": "Answer: Inn", "chosen_reward": 0.0, "chosen_index": 1,
        "rejected": "Answer: Aare", "rejected_reward": 0.0, "rejected_index": 2,
    }  # fmt: skip
    with Open(run) as client:  # opened again, it is there, and can be removed
        assert listed(client.get("/questions?state=pair+chosen+in+review")) == ["equal"]
        client.post("/question?id=equal", data={"side": "undecided"})
        assert "There is no pair." in text_of(client.get("/question?id=equal"))
    assert not Reviews(find_pair_set(str(run), Path("dataset_info")).decisions).choices()


def test_another_response_replaces_a_side_of_a_pair(tmp_path):
    run = longmab_run(tmp_path)
    before = files_of(run)
    with Open(run) as client:
        client.post("/question?id=pair", data={"pair": "1", "side": "rejected", "index": "2"})
        page = client.get("/question?id=pair")
        assert "Pair 1 (edited): chosen is round 1 (reward 1.00), rejected is round 3 (reward 0.00)" in text_of(page)
        assert 'class="response rejected"' in block(page, 2)
        shown = client.get("/pair/1")
        assert "It is the" in shown.text and "round 3, prompt with chunks 3, 4" in shown.text
        assert "1 edited" in text_of(client.get("/"))
        # Another edit of the other side keeps where the rejected text comes from.
        client.post("/pair/1", data={"decision": "edit", "chosen": "Answer: the Rhine", "rejected": "It is the Rhine."})
        assert decisions_of(run)[-1]["rejected_index"] == 2
        same = client.post("/question?id=pair", data={"pair": "1", "side": "chosen", "index": "2"})
        assert "would be the same text" in text_of(same)
        stale = client.post("/question?id=pair", data={"side": "chosen", "index": "1"})
        assert stale.status_code == 409 and len(decisions_of(run)) == 2
    assert files_of(run) == before
    (edited,) = [row for row in reviewed(run, tmp_path) if row["id"] == "pair"]
    assert (edited["rejected"], edited["rejected_index"], edited["rejected_reward"]) == ("It is the Rhine.", 2, 0.0)
    assert (edited["chosen"], edited["chosen_index"], edited["chosen_reward"]) == ("Answer: the Rhine", 0, 1.0)
    with Open(run) as client:
        client.post("/question?id=pair", data={"pair": "1", "side": "undecided"})
        client.post("/question?id=pair", data={"pair": "1", "side": "rejected", "index": "2"})
        client.post("/question?id=pair", data={"pair": "1", "side": "rejected", "index": "1"})
        assert "Pair 1 (accepted)" in text_of(client.get("/question?id=pair"))


def test_all_pairs_of_a_question_are_named_and_the_first_one_changes(tmp_path):
    further = pair("pair#0-2", question_id="pair", rejected="It is the Rhine.", rejected_index=2)
    run = longmab_run(tmp_path, pairs=[pair("pair", question_id="pair"), further])
    with Open(run) as client:
        page = client.get("/question?id=pair")
        assert "Further pairs of the question: 2. The buttons below change pair 1." in text_of(page)
        assert 'href="/question?id=pair"' in client.get("/pair/2").text
        client.post("/question?id=pair", data={"pair": "1", "side": "chosen", "index": "2"})
        assert decisions_of(run)[-1]["chosen_index"] == 2


def table_rows(page):
    return [row.replace("&nbsp;", " ") for row in page.text.split("<tr id=")[1:]]


def test_further_pairs_have_the_scores_of_their_responses(tmp_path):
    first, further = {"chosen_index": 2, "rejected_index": 0}, {"chosen_index": 1, "rejected_index": 0}
    rows = [pair("pair", question_id="pair", **first)]
    rows += [pair("pair#1-0", question_id="pair", rejected="It is the Rhine.", **further)]
    with Open(longreward_run(tmp_path, pairs=rows)) as client:
        assert ["4.0 / 0.0" in row for row in table_rows(client.get("/"))] == [True, False]
        assert ["2.0 / 0.0" in row for row in table_rows(client.get("/"))] == [False, True]


def reviewed(run, folder):
    assert main(["export", str(run), str(folder / "out.jsonl"), "--reviewed"]) == 0
    return rows_of(folder / "out.jsonl")


def test_a_thought_is_written_as_in_the_pair(tmp_path):
    texts = {"chosen": "<think>\nso\n</think>\n\nAnswer: Rhine", "rejected": "<think>\nno\n</think>\n\nAnswer: Aare"}
    rounds = [rollout("pair", n, text, thought=f"t{n}") for n, text in enumerate(("Answer: Rhine", "Aare", "Inn"))]
    run = longmab_run(tmp_path, pairs=[pair("pair", **texts)], rollouts=rounds)
    with Open(run) as client:
        assert "<summary>Thought (2 characters)</summary>" in client.get("/question?id=pair").text
        client.post("/question?id=pair", data={"pair": "1", "side": "rejected", "index": "2"})
    assert decisions_of(run)[-1]["rejected"] == "<think>\nt2\n</think>\n\nInn"


def test_what_cannot_be_chosen_is_refused(tmp_path):
    run = longmab_run(tmp_path)
    with Open(run) as client:
        empty = client.post("/question?id=cut", data={"side": "chosen", "index": "2"})
        assert "without a text or a reward" in text_of(empty) and "<button" not in block(empty, 2)
        assert client.post("/question?id=cut", data={"side": "chosen", "index": "9"}).status_code == 404
        assert client.post("/question?id=cut", data={"side": "no", "index": "0"}).status_code == 400
        evil = {"origin": "http://evil.example"}
        assert client.post("/question?id=cut", data={"side": "chosen", "index": "0"}, headers=evil).status_code == 403
    assert not find_pair_set(str(run), Path("dataset_info")).decisions.exists()


def test_hostile_text_stays_text(tmp_path):
    rows = {"sampled_responses": [sample("pair-0", HOSTILE, thought=HOSTILE)]}
    rows |= {"scored_responses": [score("pair-0", HOSTILE, 5, thought=HOSTILE)], "pairs": []}
    rows["scored_responses"][0]["details"]["helpfulness"]["analysis"] = HOSTILE
    hostile = question("pair", question=HOSTILE, answer=HOSTILE, context=HOSTILE)
    run = longreward_run(tmp_path, failures=[{"id": "boom", "reason": HOSTILE}], **rows)
    (tmp_path / "q.jsonl").write_text(json.dumps(hostile) + "\n" + json.dumps(question("boom")) + "\n")
    with Open(run) as client:
        for address in ("/questions", "/question?id=pair", "/question?id=boom"):
            page = client.get(address).text.replace(f"<script>{SCRIPT}</script>", "")
            assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page and "\u202e" not in page


@pytest.mark.slow
def test_chosen_pairs_are_registered_with_their_training_prompt(tmp_path, capsys):
    run = longmab_run(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rivers.jsonl").write_bytes((run / "pairs.jsonl").read_bytes())
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace(str(tmp_path / "words"), "smollm2-135m"))
    with Open(run) as client:
        for index, side in (("0", "chosen"), ("1", "rejected")):
            client.post("/question?id=cut", data={"side": side, "index": index})
        client.post("/question?id=equal", data={"side": "chosen", "index": "0"})  # half a choice is no pair
    command = ["register", str(run), "--name", "fine", "--reviewed", "--dataset-dir", str(tmp_path / "data")]
    assert main(command) == 0
    assert "1 pairs were chosen from questions without a pair" in re.sub(r"\s+", " ", capsys.readouterr().out)
    rows = rows_of(tmp_path / "data/fine.jsonl")
    assert [row["id"] for row in rows] == ["pair", "long", "cut"] and list(rows[2]) == list(rows[0])
    chosen = {"chosen": "Answer: Rhine", "chosen_reward": 1.0, "chosen_index": 0, "answer": ANSWER}
    rejected = {"rejected": "Answer: Aare", "rejected_reward": 0.0, "rejected_index": 1}
    assert rows[2] | chosen | rejected == rows[2]
    assert "Chur is near the RHINE." in rows[2]["prompt"] and "Which river is cut on?" in rows[2]["prompt"]
    # The data set alone has no questions, so that the pair cannot be made from it.
    (tmp_path / "data/dataset_info.json").write_text(
        json.dumps({"rivers": {"file_name": "rivers.jsonl", "ranking": True}})
    )
    command = ["register", "rivers", "--name", "other", "--reviewed", "--dataset-dir", str(tmp_path / "data")]
    assert main(command) == 2 and "name the run's folder instead of rivers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_without_any_pair_can_be_reviewed_and_registered(tmp_path):
    run = longmab_run(tmp_path, pairs=[])
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace(str(tmp_path / "words"), "smollm2-135m"))
    with Open(run) as client:
        for index, side in (("1", "chosen"), ("0", "rejected")):
            client.post("/question?id=equal", data={"side": side, "index": index})
    command = ["register", str(run), "--name", "fine", "--reviewed", "--dataset-dir", str(tmp_path / "data")]
    assert main(command) == 0
    assert [(row["id"], row["chosen"]) for row in rows_of(tmp_path / "data/fine.jsonl")] == [("equal", "Answer: Inn")]
