"""Reviewing by plain HTTP, as a browser without scripts does: the decisions file holds exactly what was decided."""

import base64
import hashlib
import json
import re

import pytest
from conftest import write_jsonl
from test_viewer import Open, found, own_cache, rows_of, write_pairs  # noqa: F401 - own_cache is a fixture

from lf_longpo.cli import main
from lf_longpo.viewer.site import SCRIPT


def decided(path):
    """The last decision about each pair in a decisions file, without the names of changes and digests."""
    last = {row["id"]: row for row in rows_of(path.with_suffix(".review.jsonl"))}
    return {
        id: {name: value for name, value in row.items() if name not in ("id", "digest", "change")}
        for id, row in last.items()
        if row["decision"] != "undecided"
    }


def post(client, page, **form):
    """Sends the form of a page."""
    return client.post(page, data=form)


def undo(client, page):
    """Presses a page's Undo."""
    change = re.search(r'name="change" value="(\w+)"', page.text)[1]
    return client.post("/undo", data={"change": change})


def banner(page):
    match = re.search(r'<span role="status">(.*?)</span>', page.text)
    return match and match[1]


def test_a_review_without_scripts_is_what_the_file_and_the_data_set_hold(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_pairs(tmp_path / "p.jsonl", 6)
    with Open(path, reviewer="Ada") as client:
        page = post(client, "/pair/1", decision="reject", comment=" Too short.\r\nReally. ")
        assert banner(page) == "Pair 1 rejected." and page.url.path == "/pair/2"
        page = post(client, "/pair/2", decision="accept")
        page = post(client, "/pair/3", decision="edit", chosen="New 2.", rejected="Bad 2.", comment="typo")
        assert banner(page) == "Pair 3 edited."
        post(client, "/pair/4", decision="accept")
        page = post(client, "/pair/6", decision="reject")
        assert page.url.path == "/end" and "2 accepted, 2 rejected, 1 edited, 1 undecided" in page.text
        assert re.search(r'<a href="/pair/5\?"[^>]*>Review the 1 undecided', page.text)
        assert f"longpo register {path} --name p_reviewed --reviewed --only-accepted" in page.text
        shown = client.get("/").text
        assert "Ada" in shown and "Too short.\nReally." in shown and "Comment: <bdi>typo" in client.get("/pair/3").text
        assert "by <bdi>Ada</bdi>" in client.get("/pair/3").text
    by = {"reviewer": "Ada"}
    assert decided(path) == {
        "q0": {"decision": "reject", "comment": "Too short.\nReally.", **by},
        "q1": {"decision": "accept", **by},
        "q2": {"decision": "edit", "chosen": "New 2.", "rejected": "Bad 2.", "comment": "typo", **by},
        "q3": {"decision": "accept", **by},
        "q5": {"decision": "reject", **by},
    }
    register = ["register", str(path), "--name", "fine", "--reviewed"]
    assert main(register) == 0
    said = capsys.readouterr().out
    assert "2 accepted, 1 edited, 1 undecided; 2 rejected pairs were removed" in said
    assert "1 of the 4 pairs are undecided; to remove them, add --only-accepted" in said
    assert main([*register, "--overwrite", "--only-accepted"]) == 0
    assert "2 accepted, 1 edited; 2 rejected and 1 undecided pairs were removed" in capsys.readouterr().out
    rows = rows_of("dataset_info/fine.jsonl")
    assert [(row["id"], row["chosen"]) for row in rows][1] == ("q2", "New 2.") and len(rows) == 3
    export = ["export", str(path), "out.jsonl", "--only-accepted"]
    assert main(export) == 2 and "--only-accepted needs --reviewed" in capsys.readouterr().err
    assert main([*export, "--reviewed"]) == 0 and rows_of("out.jsonl") == rows
    assert "3 rows -> out.jsonl\n2 accepted, 1 edited; 2 rejected" in capsys.readouterr().out


def test_undo_restores_the_exact_earlier_decision(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 3)
    with Open(path) as client:
        first = post(client, "/pair/1", decision="edit", chosen="New.", rejected="Bad 0.", comment="why")
        before = decided(path)
        second = post(client, "/pair/1", decision="reject")
        assert decided(path) == {"q0": {"decision": "reject", "comment": "why"}}
        page = undo(client, second)
        assert decided(path) == before and page.url.path == "/pair/1"
        assert banner(page) == "The last decision about 1 pair was undone." and "Undo" not in page.text
        # The earlier change can be undone now; the page of the later one does nothing again.
        assert banner(undo(client, second)) == "The last decision about 0 pairs was undone."
        undo(client, first)
        assert decided(path) == {}
        # "Make undecided" keeps nothing, and can be undone.
        post(client, "/pair/2", decision="reject", comment="no")
        page = post(client, "/pair/2", decision="undecided")
        assert decided(path) == {} and banner(page) == "Pair 2 made undecided." and page.url.path == "/pair/2"
        undo(client, page)
        assert decided(path) == {"q1": {"decision": "reject", "comment": "no"}}
        # A decision that is sent twice, as by a double click, is one change.
        post(client, "/pair/3", decision="accept")
        undo(client, post(client, "/pair/3", decision="accept"))
        assert list(decided(path)) == ["q1"]
    with Open(path) as client:  # after a new start, too
        page = post(client, "/pair/2", decision="accept")
    with Open(path) as client:
        assert banner(client.get(str(page.url))) == "Pair 2 accepted."
        undo(client, page)
        assert banner(client.get(str(page.url))) is None
    assert decided(path) == {"q1": {"decision": "reject", "comment": "no"}}


def test_typed_text_is_not_lost(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 3)
    typed = {"chosen": "Typed & <new>.", "rejected": "Bad 1.", "comment": "half a"}
    with Open(path) as client:
        assert "<textarea" not in client.get("/pair/2").text and "<a" in client.get("/pair/2").text
        edit = client.get("/pair/2?edit=chosen").text
        # Without scripts, every way out of the fields sends them.
        assert re.findall(r'name="(go|decision)" value="(\w+)"', edit) == [
            ("go", "list"), ("go", "previous"), ("go", "next"),
            ("decision", "edit"), ("decision", "accept"), ("decision", "reject"),
        ]  # fmt: skip
        assert not re.findall(r'href="[^#]', edit) and re.findall(r'action="([^"?]*)', edit) == ["/pair/2"]
        for name, value in [("decision", "accept"), ("decision", "reject"), ("go", "next"), ("go", "list")]:
            page = post(client, "/pair/2", **typed, **{name: value})
            assert page.status_code == 200 and "is not saved" in page.text
            assert "\nTyped &amp; &lt;new&gt;.</textarea>" in page.text and "\nhalf a</textarea>" in page.text
            assert f'name="discard" value="{value}"' in page.text
        refused = post(client, "/pair/2", **typed | {"rejected": "Typed & <new>."}, decision="edit")
        assert "must differ" in refused.text and "\nhalf a</textarea>" in refused.text
        assert not path.with_suffix(".review.jsonl").exists()
        assert post(client, "/pair/2", **typed, discard="next").url.path == "/pair/3"
        same = {"chosen": "Good 1, 100%_sure.", "rejected": "Bad 1."}
        assert post(client, "/pair/2", **same, comment="", go="previous").url.path == "/pair/1"
        assert "is not saved" in post(client, "/pair/2", **same, comment="x", go="next").text
        # A comment is saved with the decision; the question is only about lost text.
        post(client, "/pair/2", **same, comment="kept", decision="reject")
        assert decided(path) == {"q1": {"decision": "reject", "comment": "kept"}}
        post(client, "/pair/3", **typed, discard="accept")
    assert decided(path)["q2"] == {"decision": "accept", "comment": "half a"}


def test_the_list_keeps_its_page_filter_and_order(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 120)
    with Open(path) as client:
        query = "state=undecided&least_gap=0.1&sort=gap_up"
        listed = found(client.get(f"/?{query}&page=2"))
        page = client.get(f"/pair/{listed[3]}?{query}")
        back = f'href="/?{query.replace("&", "&amp;")}&amp;page=2#pair-{listed[3]}"'
        assert back in page.text and f'id="pair-{listed[3]}"' in client.get(f"/?{query}&page=2").text
        answer = client.post(f"/pair/{listed[3]}?{query}", data={"decision": "accept"}, follow_redirects=False)
        assert answer.headers["location"].startswith(f"/pair/{listed[4]}?{query}&changed=")
        # The decided pair is not in the list any more; its page still leads to its neighbours and back.
        page = client.get(f"/pair/{listed[3]}?{query}")
        assert "not in this list" in page.text and f"page=2#pair-{listed[3]}" in page.text
        assert f'href="/pair/{listed[2]}?' in page.text and f'href="/pair/{listed[4]}?' in page.text
        assert page.headers["cache-control"] == "no-store"


def test_all_pairs_of_a_filtered_list_are_decided_and_undone_together(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 10)
    with Open(path, reviewer="Ada") as client:
        post(client, "/pair/9", decision="edit", chosen="New.", rejected="Bad 8.")
        before = decided(path)
        query = "most_gap=0.5&sort=gap_up"
        page = client.get(f"/decide?{query}&decision=reject").text
        assert "Reject all 5 pairs?" in page
        assert "Now: 4 undecided, 1 edited." in page.replace("1 edited, 4 undecided", "4 undecided, 1 edited")
        assert "edited texts are not used" in page
        matching = re.search(r'name="matching" value="(\w+)"', page)[1]
        wrong = client.post("/decide?most_gap=0.6", data={"decision": "reject", "matching": matching, "comment": "so"})
        assert "Reject all 6 pairs?" in wrong.text and "Nothing was decided" in wrong.text and "\nso</tex" in wrong.text
        assert decided(path) == before
        done = client.post(f"/decide?{query}", data={"decision": "reject", "matching": matching, "comment": "alike"})
        assert banner(done) == "5 pairs rejected." and "sort=gap_up" in str(done.url)
        rejected = {"decision": "reject", "comment": "alike", "reviewer": "Ada"}
        assert decided(path) == {f"q{n}": rejected for n in range(5, 10)}
        post(client, "/pair/7", decision="accept")
        undone = undo(client, done)  # what was decided since stays
        assert banner(undone) == "The last decision about 4 pairs was undone."
        assert decided(path) == before | {"q6": rejected | {"decision": "accept"}}
        # Without a comment, comments and the reviewers of equal decisions stay.
        post(client, "/pair/1", decision="accept", comment="own")
    with Open(path, reviewer="Bob") as client:
        matching = re.search(r'name="matching" value="(\w+)"', client.get("/decide?decision=accept").text)[1]
        page = client.post("/decide?page=2", data={"decision": "accept", "matching": matching, "comment": ""})
        assert banner(page) == "8 pairs accepted."
        assert decided(path)["q0"] == {"decision": "accept", "comment": "own", "reviewer": "Ada"}
        assert decided(path)["q1"] == {"decision": "accept", "reviewer": "Bob"}
        assert client.get("/decide?decision=edit").status_code == 400


def test_columns_that_differ_are_shown_sorted_and_filtered(tmp_path):
    rows = [
        {"prompt": "Read.\n...\nEnd.", "input": "Why?", "chosen": "a" * 10, "rejected": "b" * 20, "source": "news"},
        {
            "prompt": "Short.",
            "input": "为什么这样？",
            "chosen": "<think>So.</think>a",
            "rejected": "b",
            "dataset": "web",
        },
        {"prompt": "Short.", "input": "How?", "chosen": "a" * 10, "rejected": "b", "source": {"odd": 1}},
    ]
    path = write_jsonl(tmp_path / "p.jsonl", [{"id": f"q{n}"} | row for n, row in enumerate(rows)])
    with Open(path) as client:
        page = client.get("/?sort=ratio_down")
        assert found(page) == [2, 3, 1] and found(client.get("/?sort=ratio_up")) == [1, 3, 2]
        heads = re.findall(
            r'<a href="/\?([^"]*)">(\w[\w ]*)', re.search(r"<thead>.*?</thead>", page.text, re.DOTALL)[0]
        )
        assert ("sort=ratio_up", "length ratio") in heads and ("sort=gap_down", "reward gap") in heads
        assert {"cut", "thinking", "language", "source"} <= {label for _, label in heads}
        assert re.findall(r'<th[^>]* aria-sort="(\w+)"', page.text) == ["descending"]
        for query, numbers in {
            "most_ratio=1": [1], "least_ratio=11": [2], "prompt=cut": [1], "prompt=whole": [2, 3], "thinking=yes": [2],
            "thinking=no": [1, 3], "language=zh": [2], "source=news": [1], "source=web": [2], "state=decided": [],
            "sort=language_down": [2, 1, 3], "sort=cut_down": [1, 2, 3], "sort=thinking_down": [2, 1, 3],
            "sort=number_down": [3, 2, 1], "sort=faithfulness_up": [1, 2, 3],
        }.items():  # fmt: skip
            assert found(client.get(f"/?{query}")) == numbers, query
        post(client, "/pair/2", decision="reject")
        assert found(client.get("/?state=decided")) == [2] and found(client.get("/?sort=decision_up")) == [2, 1, 3]
    plain = write_pairs(tmp_path / "plain.jsonl", 2)
    with Open(plain) as client:  # no columns without a difference
        heads = re.search(r"<thead>.*?</thead>", client.get("/").text, re.DOTALL)[0]
        assert not re.search("cut|thinking|language|source|faithfulness", heads)


def test_only_the_pages_own_script_may_run(tmp_path):
    with Open(write_pairs(tmp_path / "p.jsonl", 1)) as client:
        for page in map(client.get, ("/", "/pair/1", "/pair/1?edit=chosen", "/end", "/decide?decision=accept")):
            scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
            assert scripts == [SCRIPT]
            assert f"script-src 'sha256-{digest}';" in page.headers["content-security-policy"]


@pytest.mark.parametrize("reviewer", [None, 7, "Ada"])
def test_decisions_of_earlier_versions_are_read(tmp_path, reviewer):
    path = write_pairs(tmp_path / "p.jsonl", 2)
    with Open(path) as client:
        digest = re.search(r'name="digest" value="(\w+)"', client.get("/pair/1").text)[1]
    row = {"digest": digest, "id": "q0", "decision": "reject"} | ({"reviewer": reviewer} if reviewer else {})
    path.with_suffix(".review.jsonl").write_text(json.dumps(row) + "\n")
    with Open(path) as client:
        assert found(client.get("/?state=reject")) == [1]
        undo(client, post(client, "/pair/1", decision="accept"))
    assert rows_of(path.with_suffix(".review.jsonl"))[-1] == row


def test_a_data_set_without_accepted_pairs_is_not_written(tmp_path, capsys):
    path = write_pairs(tmp_path / "p.jsonl", 2)
    with Open(path) as client:
        post(client, "/pair/1", decision="reject")
    register = ["register", str(path), "--name", "x", "--dataset-dir", str(tmp_path / "data"), "--only-accepted"]
    assert main(register) == 2 and "--only-accepted needs --reviewed; add it" in capsys.readouterr().err
    assert main([*register, "--reviewed"]) == 2
    assert "no pair is accepted, so nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.glob("data/*"))
