"""The viewer on a run that goes on, without its tokenizer, and without transformers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_viewer import Open, found, make_run, own_cache, rows_of, write_pairs  # noqa: F401 - own_cache is a fixture

from lf_longpo.data.review import Reviews
from lf_longpo.run_folder.pair_sets import find_pair_set


def test_new_pairs_are_taken_up_and_a_torn_line_waits(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 6)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    with Open(path) as client:
        assert found(client.get("/")) == [1, 2, 3]
        with path.open("ab") as file:
            file.write(lines[3][20:] + lines[4])
        assert 'rel="next"' not in client.get("/pair/2?sort=gap_down").text or found(client.get("/")) == [1, 2, 3, 4, 5]
        assert found(client.get("/")) == [1, 2, 3, 4, 5] and "Question 4?" in client.get("/pair/5").text
        with path.open("ab") as file:
            file.write(lines[5])
        client.get("/pair/5")
        assert 'href="/pair/6?' in client.get("/pair/5").text


def test_pairs_keep_their_numbers_when_the_file_is_replaced(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 4)
    rows = rows_of(path)
    with Open(path) as client:
        digest = re.search(r'name="digest" value="(\w+)"', client.get("/pair/3").text)[1]
        new = path.with_suffix(".new")
        new.write_text("".join(json.dumps(row) + "\n" for row in (rows[3], rows[2] | {"id": "q9"}, rows[0])))
        new.replace(path)
        assert client.post("/pair/1", data={"decision": "reject"}).status_code == 409
        assert found(client.get("/")) == [4, 3, 1]  # the order of the file
        assert client.get("/pair/2").status_code == 404 and "q9" in client.get("/pair/3").text
        wrong = client.post("/pair/1", data={"decision": "reject", "digest": digest})
        assert wrong.status_code == 409 and not (tmp_path / "p.review.jsonl").exists()
        client.post("/pair/3", data={"decision": "reject", "digest": digest})
        assert found(client.get("/?state=reject")) == [3]


def test_a_removed_file_is_no_fault_of_the_server(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 2)
    with Open(path) as client:
        path.unlink()
        assert client.get("/pair/1").status_code == 409 and "reading the file stopped" in client.get("/").text


def test_a_run_that_goes_on_says_so_and_finds_the_evidence_of_new_pairs(tmp_path, key):
    run = make_run(tmp_path)
    (run / "summary.json").unlink()
    pairs, rollouts = ((run / name).read_bytes() for name in ("pairs.jsonl", "rollouts.jsonl"))
    last = json.loads(pairs.splitlines()[-1])
    early = [line for line in rollouts.splitlines(keepends=True) if json.loads(line)["id"] != last["id"]]
    (run / "pairs.jsonl").write_bytes(b"".join(pairs.splitlines(keepends=True)[:-1]))
    (run / "rollouts.jsonl").write_bytes(b"".join(early))
    with Open(run) as client:
        page = client.get("/")
        assert "The run is not finished" in page.text
        assert "prompt with chunks" in client.get("/pair/1").text
        for name, whole in (("rollouts.jsonl", rollouts), ("pairs.jsonl", pairs)):
            with (run / name).open("ab") as file:
                rest = [line for line in whole.splitlines(keepends=True) if json.loads(line)["id"] == last["id"]]
                file.write(b"".join(rest))
        number = max(found(client.get("/")))
        assert number == max(found(page)) + 1
        shown = client.get(f"/pair/{number}").text
        assert "prompt with chunks" in shown and 'class="on ' in shown


@pytest.mark.slow
@pytest.mark.parametrize("method", ["longmab", "longreward"])
def test_a_run_without_its_tokenizer_is_shown(tmp_path, key, method):
    run = make_run(tmp_path, method)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"tokenizer": "models/gone"}))
    with Open(run) as client:
        page = client.get("/pair/1")
    assert page.status_code == 200 and '<pre class="context"' in page.text
    if method == "longmab":
        assert "The evidence is not marked: tokenizer: " in page.text and "models/gone" in page.text
        assert 'class="on ' not in page.text and "prompt with chunks" in page.text
    else:
        assert re.search(r'<span class="on chosen', page.text)


@pytest.mark.slow
def test_chunks_that_differ_from_the_run_are_not_marked(tmp_path, key):
    run = make_run(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["longmab"]["chunk_size"] = 300
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with Open(run) as client:
        page = client.get("/pair/1").text
    assert "another number of chunks" in page and 'class="on ' not in page


@pytest.mark.slow
def test_pairs_of_a_run_are_shown_without_transformers(tmp_path, key):
    run = make_run(tmp_path)
    script = (
        "import sys\nfrom pathlib import Path\nfrom test_viewer import Open\n"
        f"with Open(Path({str(run)!r})) as client:\n"
        "    assert 'class=\"on ' in client.get('/pair/1').text\n"
        "    assert 'no reward difference' in client.get('/questions').text\n"
        "    assert 'id=\"chunk-1\"' in client.get('/question?id=q1').text\n"
        "    client.post('/question?id=q0', data={'side': 'chosen', 'index': '0'})\n"
        "loaded = {'torch', 'transformers', 'llamafactory', 'datasets'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    tests = [Path(__file__).parent, Path(__file__).parent.parent]
    path = os.pathsep.join([*map(str, tests), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "fresh")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_decisions_are_found_through_a_link_and_from_elsewhere(tmp_path, key, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "deep/down/elsewhere"
    home.mkdir()
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(home)
    make_run(home)
    config = yaml.safe_load((home / "run/config.yaml").read_text())
    relative = {"output_dir": "run", "dataset_dir": "data", "input": "q.jsonl"}
    (home / "run/config.yaml").write_text(yaml.safe_dump(config | relative))
    (elsewhere / "linked").symlink_to(home / "run")
    with Open("run") as client:
        client.post("/pair/1", data={"decision": "reject"})
    monkeypatch.chdir(elsewhere)
    for name in (home / "run", "linked", "../../../home/run"):
        with Open(name) as client:
            assert found(client.get("/?state=reject")) == [1]
        assert Reviews(find_pair_set(str(name), Path("dataset_info")).decisions).all()
