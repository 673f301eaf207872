"""Damaged input files: each is read correctly, or refused with an error that names the file and the line."""

import csv
import json
import random
import re
from collections import Counter

import pyarrow
import pytest
from pyarrow import parquet

import lf_longpo.config as configs
from lf_longpo.config.loading import load_config
from lf_longpo.data.questions import Source, check_questions, read_questions
from lf_longpo.errors import UserError
from lf_longpo.evaluation.benchmarks import make_benchmark
from lf_longpo.export.export import export
from lf_longpo.files.faults import Faults
from lf_longpo.files.run_dir import save_settings
from lf_longpo.files.tables import places_and_rows
from lf_longpo.longreward.given_responses import KnownQuestion, check_files
from lf_longpo.longreward.score_file import _questions
from lf_longpo.plugin.entries import describe_dataset
from lf_longpo.plugin.registry import register_dataset
from lf_longpo.synthesis.corpus import read_corpus
from lf_longpo.synthesis.documents import read_documents
from lf_longpo.synthesis.multihop_questions import read_multihop

FILES = 2000

DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]
ODD = [
    None, True, False, 0, -1, 3.5, 1e308, float("nan"), 10**30, "", " ", "\t\r\n", "x", "\ud83d", "a\udc00b", "\x00",
    "\ufeff", "\u2028", "\u202e", "😀", "é" * 5_000, "7", "[]", "{}", "null", "Passage 1:\n", [], {}, [[]], [{}],
    [None], ["a", ""], ["a", 3], ["passage one", "passage two"], [["T", ["s"]]], {"text": ["a"]}, {"a": {"b": []}},
    {"title": ["T"], "sentences": [["s"]]}, [{"role": "user", "content": "x"}], [{"from": "x"}], DEEP,
]  # fmt: skip
ODD_BYTES = b"\xff", b"\x00", b'"', b"\n", b"\\", b"}", b"\xed\xa0\x80", b"{" * 5000
SURROGATE = re.compile("[\ud800-\udfff]")


def question(draw, number):
    names = draw.choice([("id", "question", "answer"), ("idx", "query", "answer"), ("_id", "input", "answers")])
    values = (f"q{number}", f"What of {number}?", draw.choice(["It", ["It", "That"]]))
    return dict(zip(names, values, strict=True)) | {"context": f"A text about {number}, 河 and é.", "length": 3}


def response(draw, number):
    idx = f"q{number // 2}-{number % 2}"
    return {"idx": idx, "query": f"Q{number // 2}?", "answer": f"A{number}", "context": f"Text {number // 2}."}


def pair(draw, number):
    row = {"id": f"p{number}", "prompt": f"P{number}", "chosen": "good", "rejected": "bad", "chosen_reward": 0.5}
    if draw.random() < 0.3:
        row |= {"chosen": {"from": "gpt", "value": "good"}, "rejected": [{"role": "assistant", "content": "bad"}]}
    return row


def hop(draw, number):
    if draw.random() < 0.5:
        paragraphs = [{"title": f"T{n}", "paragraph_text": f"Text {n}.", "is_supporting": n == 1} for n in range(3)]
        return {"id": f"m{number}", "question": f"Q{number}?", "answer": "A", "paragraphs": paragraphs}
    context = [[f"T{n}", [f"Sentence {n}.", " More."]] for n in range(3)]
    facts = [["T1", 0]]
    row = {"_id": f"h{number}", "question": f"Q{number}?", "answer": "A"}
    return row | {"context": context, "supporting_facts": facts}


def damaged(draw, value):
    """A JSON value with one thing in it replaced, removed, repeated or added, at any depth."""
    if isinstance(value, dict | list) and value and draw.random() < 0.8:
        copy = value.copy()
        at = draw.choice(list(copy)) if isinstance(copy, dict) else draw.randrange(len(copy))
        what = draw.random()
        if what < 0.6:
            copy[at] = damaged(draw, copy[at])
        elif what < 0.8:
            del copy[at]
        elif isinstance(copy, dict):
            copy[draw.choice([*copy, "extra", "", "\ud800", "问题"])] = draw.choice(ODD)
        else:
            copy.insert(at, draw.choice([copy[at], *ODD]))
        return copy
    return draw.choice(ODD)


def write(draw, path, rows):
    """The rows in the file's format, where it can hold them, at times with damaged bytes."""
    if path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
        with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for row in rows:
                cells = [row.get(name, "") for name in names] if isinstance(row, dict) else [row]
                writer.writerow([str(cell) for cell in cells][: draw.choice([99, 99, 99, 2])])
    elif path.suffix == ".parquet":
        rows = [row if isinstance(row, dict) else {"row": row} for row in rows]
        try:
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        except (pyarrow.ArrowException, OverflowError, UnicodeError, ValueError):
            no_text = pyarrow.array([b"\xff"]).view("string")
            parquet.write_table(pyarrow.table({"id": no_text, "idx": no_text, "question": no_text}), path)
    else:
        plain = [json.dumps(row, ensure_ascii=False) for row in rows]
        lines = [json.dumps(row) if draw.random() < 0.5 or SURROGATE.search(line) else line
                 for row, line in zip(rows, plain, strict=True)]  # fmt: skip
        listed = path.suffix == ".json" and (lines[0].startswith("[") or draw.random() < 0.7)
        text = f"[{','.join(lines)}]" if listed else "\n".join(lines)
        path.write_bytes(text.encode("utf-8", "replace"))
    if draw.random() < 0.25:
        raw = path.read_bytes()
        at = draw.randrange(len(raw) + 1)
        raw = draw.choice(
            [
                raw[:at],
                raw[:at] + draw.choice(ODD_BYTES) + raw[at:],
                b"\xef\xbb\xbf" + raw,
                raw.replace(b"\n", b"\r\n"),
                raw.decode("utf-8", "replace").encode("utf-16"),
                raw.decode("utf-8", "replace").encode("latin-1", "replace"),
                b"",
                raw + b"\n\n" + raw,
            ]
        )
        path.write_bytes(raw)
        return False
    return path.suffix in (".jsonl", ".json")


def filled(row, *names):
    return next((row[name] for name in names if row.get(name) not in (None, [], "") and str(row[name]).strip()), None)


def read_question_file(draw, path, rows, whole):
    source = Source(str(path), needs_answers=draw.random() < 0.7)
    digests = check_questions(source)
    found = list(read_questions(source))
    assert len(digests) == len(found)
    if whole:
        assert [one.id for one in found] == [str(filled(row, "id", "idx", "_id")) for row in rows]
        assert [one.question for one in found] == [filled(row, "question", "input", "query") for row in rows]
        assert [one.context for one in found] == [row["context"] for row in rows]
        assert all(list(one.answers) in ([filled(row, "answer", "answers")], filled(row, "answer", "answers"), [])
                   for one, row in zip(found, rows, strict=True))  # fmt: skip


def evaluate_file(draw, path, rows, whole):
    given = {"input": str(path), "output_dir": "x", "model": {"model": "m"}}
    shots = path.with_name("shots.json")
    shots.write_text(json.dumps(damaged(draw, [[{"answer": "a", "score": 3}]] * 6)))
    config = draw.choice(
        [
            configs.LongQAConfig(**given),
            configs.LongBenchConfig(**given),
            configs.LongBenchChatConfig(**given, few_shots=str(shots)),
            configs.WinRateConfig(**given, against={"model": "n"}),
        ]
    )
    with Faults() as faults:
        found = [item for _, item in make_benchmark(config).items(faults)]
    assert not whole or len(found) == len(rows)


def score_response_file(draw, path, rows, whole):
    config = configs.ScoreConfig(responses=str(path))
    with Faults() as faults:
        asked = list(_questions(config, faults))
    known = {one.id: KnownQuestion(one.question, "", "") for one in asked}
    given = check_files(path.parent / "nowhere", str(path), known)
    assert not whole or sorted(one.idx for its in given.values() for one in its) == sorted(row["idx"] for row in rows)
    assert {one.id for one in asked} == set(given)


def export_pairs(draw, path, rows, whole):
    target = path.with_name(f"out{draw.choice(['.jsonl', '.parquet'])}")
    target.unlink(missing_ok=True)
    form = draw.choice(["pairs", "trl-dpo"])
    number, _ = export(str(path), form, target, path.parent)
    made = [row for _, row in places_and_rows(str(target))]
    assert number == len(made) and (not whole or number == len(rows))
    if form == "trl-dpo":
        sides = [made[place][side] for side in ("chosen", "rejected") for place in range(number)]
        assert all(isinstance(side[-1]["content"], str) for side in sides)
        if whole:
            texts = [json.dumps(row) for row in rows]
            assert all(json.dumps(side[-1]["content"])[1:-1] in "".join(texts) for side in sides)


def register_pairs(draw, path, rows, whole):
    register_dataset(path.parent, "x", describe_dataset(str(path), path.parent), overwrite=True)


def read_hops(draw, path, rows, whole):
    passed_over = Faults("questions")
    with Faults() as faults:
        found = [one for _, one in read_multihop(places_and_rows(str(path), faults=faults), passed_over)]
    passed_over.warning().encode()
    for one in found:
        assert one.supporting and all(document.text.strip() for document in (*one.supporting, *one.distracting))
        assert one.question.strip() and all(answer.strip() for answer in one.answers)
    if not found and passed_over:
        raise UserError(passed_over.refusal())


def article(draw, number):
    return {"title": f"T{number}", "text": f"Text {number}.", "id": f"d{number}", "licence": "MIT"}


def read_document_file(draw, path, rows, whole):
    found = [text for _, text in read_documents([str(path)], "train")]
    assert all(one.text.strip() and one.id.strip() for one in found) and (not whole or len(found) == len(rows))


def read_articles(draw, path, rows, whole):
    passed_over = Faults("articles")
    found = list(read_corpus(str(path), "train", 10**6, None, passed_over))
    assert found and all(one.title.strip() and one.text.strip() for one in found)


READERS = [
    (question, read_question_file),
    (question, evaluate_file),
    (article, read_document_file),
    (article, read_articles),
    (response, score_response_file),
    (pair, export_pairs),
    (pair, register_pairs),
    (hop, read_hops),
]
# What is wrong with a file and not with a line of it.
OF_THE_FILE = re.compile(
    "holds no questions|holds no articles|no document is left|"
    "cannot be read as Parquet|is no JSON|is not JSON|is not UTF-8|two columns|no rows|there are no rows|"
    "no row with named columns|no response belongs|Parquet cannot hold|must hold a list|is not a data set of pairs|"
    "have one name"
)


@pytest.mark.slow
def test_damaged_tables_are_read_right_or_refused_by_file_and_line(tmp_path):
    outcomes = Counter()
    for seed in range(FILES * 3 // 4):
        draw = random.Random(seed)
        make, read = draw.choice(READERS)
        types = [".jsonl"] if make is pair else [".jsonl", ".jsonl", ".json", ".csv", ".parquet"]
        path = tmp_path / f"qasper{draw.choice(types)}"
        rows = [make(draw, number) for number in range(draw.choice([1, 3, 6]))]
        for _ in range(draw.choice([0, 1, 1, 2, 5])):
            at = draw.randrange(len(rows))
            rows[at] = damaged(draw, rows[at])
        whole = write(draw, path, rows)
        try:
            read(draw, path, rows, whole)
        except UserError as error:
            said = str(error)
            said.encode()
            assert any(str(tmp_path / name) in said for name in (path.name, "out", "shots")), (seed, said)
            assert re.search(r"(line|record|list) \d+", said) or OF_THE_FILE.search(said), (seed, said)
            outcomes["refused"] += 1
        except BaseException as error:
            raise AssertionError(
                f"seed {seed}: {path.name}: {read.__name__}: {type(error).__name__}: {error}"
            ) from error
        else:
            outcomes["read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > FILES / 5, outcomes


MODEL = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", "price": {"prompt": 1.0}}
GENERATE = {"input": "q.jsonl", "output_dir": "run", "dataset_name": "d", "policy": MODEL, "pairs": {"template": "x"}}
QUESTIONS = {"output": "q.jsonl", "tokenizer": "t", "min_tokens": 5, "max_tokens": 9}
CONFIGS = [
    (configs.GenerateConfig, GENERATE | {"method": "longmab", "longmab": {"rounds": 3, "sampling": {"top_p": 0.9}}}),
    (configs.GenerateConfig, GENERATE | {"method": "longreward", "judge": MODEL, "max_cost": 3.0}),
    (configs.ScoreConfig, {"responses": "r.jsonl", "judge": MODEL, "longreward": {"rating": "parsed"}}),
    (configs.LongQAConfig, {"input": ["a", "b"], "output_dir": "x", "model": MODEL, "sampling": {"temperature": 1}}),
    (configs.MultiHopConfig, QUESTIONS | {"input": "h.jsonl", "held_out": "h.jsonl"}),
    (configs.MixConfig, QUESTIONS | {"inputs": ["a", "b"], "languages": ["en"]}),
    (configs.SelfInstructConfig, {"input": "d", "output_dir": "x", "dataset_name": "n", "model": MODEL}),
]
ODD_YAML = [
    "!!bool x", '!!int ""', "!!timestamp x", "2024-13-45", "&a [*a]", "{[]: 1}", "[" * 400, "'", "*none", ".inf",
    ".nan", "!!python/object:os.system x", '"\\U00110000"', '"\\uD83D"', '"a\\0b"', "9" * 5000, "? [a]", "\t", "1:99",
    "- a\nb: c", "0x", "!!binary é", "!!set {a}", "~", "on", "\x07", "\ud83d", "=", "<<", "%YAML 9",
]  # fmt: skip


@pytest.mark.slow
def test_damaged_configurations_are_read_or_refused_by_file(tmp_path):
    path, outcomes = tmp_path / "c.yaml", Counter()
    for seed in range(FILES // 4):
        draw = random.Random(seed)
        kind, data = draw.choice(CONFIGS)
        for _ in range(draw.choice([0, 0, 0, 1, 1, 2])):
            data = damaged(draw, data)
        text = json.dumps(data, ensure_ascii=draw.random() < 0.5, indent=1)  # which is YAML
        if draw.random() < 0.4:
            lines = text.splitlines(keepends=True)
            at = draw.randrange(len(lines))
            key = draw.choice([lines[at].partition(":")[0] + ": ", "", "x: "])
            lines[at] = f"{key}{draw.choice(ODD_YAML)}{draw.choice([',', ''])}\n"
            text = "".join(lines)
        path.write_bytes(text.encode("utf-8", draw.choice(["replace", "surrogatepass"])))
        overrides = [f"{draw.choice(['seed', 'model', 'input', 'policy.model'])}={draw.choice(ODD_YAML)}", "x"]
        overrides = overrides[: draw.choice([0, 0, 0, 1, 2])]
        try:
            config = load_config(kind, path, overrides)
            if hasattr(config, "output_dir"):  # only such settings are kept in a folder
                save_settings(config, tmp_path)
                assert load_config(kind, tmp_path / "config.yaml") == config
        except UserError as error:
            assert str(path) in str(error) or "override" in str(error), (seed, str(error))
            outcomes["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {kind.__name__}: {error!r:.200}\n{text[:500]}") from error
        else:
            outcomes["read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > FILES / 20, outcomes
