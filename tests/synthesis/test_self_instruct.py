"""Questions about documents, written by a model: a scripted one shows what is left out, a real one that it works."""

import json
import random
import re
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from conftest import write_jsonl
from stub import MODEL

from lf_longpo.cli import main
from lf_longpo.data.questions import Source, check_questions
from lf_longpo.synthesis.documents import read_text
from lf_longpo.synthesis.self_instruct import find_question

WORDS = "river council harvest engine library winter signal garden treaty market voyage painter".split()


def words(seed, number=300):
    draw = random.Random(seed)
    return " ".join(f"{' '.join(draw.choices(WORDS, k=9))} {seed}." for _ in range(number // 10))


def write_config(tmp_path, stub, **changes):
    config = {
        "input": str(tmp_path / "documents"),
        "output_dir": str(tmp_path / "run"),
        "dataset_dir": str(tmp_path / "data"),
        "dataset_name": "asked",
        "model": {"model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY", "max_retries": 0},
        "tokenizer": "smollm2-135m",
        "min_tokens": 100,
        "max_tokens": 1500,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config | changes))
    return ["synthesize", "self-instruct", str(tmp_path / "c.yaml")]


def write_documents(tmp_path, **texts):
    folder = tmp_path / "documents"
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def made(tmp_path):
    return [json.loads(line) for line in (tmp_path / "data/asked.jsonl").read_text().splitlines()]


def own_document(prompt):
    return re.search(r"<document>\n(.*?)\n</document>", prompt, re.DOTALL)[1]


def well_read(prompt, seed):
    """Asks for the last words of the document, and knows them."""
    text = own_document(prompt)
    if "Reply with the question" in prompt or "只回复这个问题" in prompt:
        return f"Question: {seed} What comes behind {text[-12:-6]}?"
    return f"Behind that comes {text.split()[-1]}"


def write_pdf(path: Path, text: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure = pyplot.figure()
        for number, line in enumerate(text.splitlines()):
            figure.text(0.02, 0.98 - 0.02 * number, line, fontsize=5)
        figure.savefig(path)
        pyplot.close(figure)


def test_documents_of_all_kinds_become_an_sft_data_set(tmp_path, stub, capsys):
    stub.answer = well_read
    chinese = "".join(random.Random(1).choices("这条河从桥下流过人们沿着河岸走谈论天气和贸易", k=300)) + "。"
    page = f"<html><head><title>T</title></head><body><nav>Home</nav><article><p>{words('page')}</p></article></body>"
    folder = write_documents(tmp_path, a__md=words("a"), c__txt=chinese, p__html=page, long__txt=words("long", 4000))
    write_documents(tmp_path, same__md=words("a").replace("river council", "river garden"), short__txt="Only this.")
    write_pdf(folder / "sub.pdf", words("pdf").replace(". ", ".\n"))
    write_jsonl(folder / "rows.jsonl", [{"id": 7, "text": words("row"), "licence": "MIT"}, {"text": words("next")}])

    assert main(write_config(tmp_path, stub, licence="CC0-1.0")) == 0
    assert "skipped: 1 there already, 1 too short" in re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    rows = made(tmp_path)
    by_document = {}
    for row in rows:
        by_document.setdefault(row["documents"][0], []).append(row)
        assert set(row) == {
            "idx", "query", "answer", "context", "kind", "language", "source", "licence", "documents", "tokens",
        }  # fmt: skip
        assert row["answer"] == f"Behind that comes {row['context'].split()[-1]}"
        assert row["query"].endswith("?") and not row["query"].startswith("Question")
        assert 100 <= row["tokens"] <= 1500 and row["source"] == "documents"
    assert set(by_document) == {"7", "a.md", "c.txt", "long.txt", "p.html", "rows.jsonl#2", "sub.pdf"}
    assert by_document["7"][0]["licence"] == "MIT" and by_document["a.md"][0]["licence"] == "CC0-1.0"
    assert by_document["c.txt"][0]["language"] == "zh" and by_document["c.txt"][0]["context"] == chinese
    assert by_document["p.html"][0]["context"] == words("page")
    assert by_document["sub.pdf"][0]["context"].split() == words("pdf").split()
    assert "".join(row["context"] for row in by_document["long.txt"]) == words("long", 4000)
    assert len({row["kind"] for row in rows}) > 1

    # The next stage reads it, and so does LLaMA-Factory.
    assert len(check_questions(Source(str(tmp_path / "data/asked.jsonl")))) == len(rows)
    entry = json.loads((tmp_path / "data/dataset_info.json").read_text())["asked"]
    assert entry["columns"] == {"prompt": "context", "query": "query", "response": "answer"}
    assert "| documents | CC0-1.0 |" in (tmp_path / "data/asked.card.md").read_text()

    # Started again it makes no calls, and gives the same file.
    before, chats = (tmp_path / "data/asked.jsonl").read_bytes(), stub.chats
    assert main(write_config(tmp_path, stub, licence="CC0-1.0")) == 0
    assert stub.chats == chats == 2 * len(rows) and (tmp_path / "data/asked.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ('Question: "What is X?"', "What is X?"),
        ("**Question: What is X?**", "What is X?"),
        ('### Question\n**What does "X" mean?**', 'What does "X" mean?'),
        ("问题：《红楼梦》的作者是谁？", "《红楼梦》的作者是谁？"),
        ("题目：“自由”是什么？\n参考答案：一种权利", "“自由”是什么？"),
        ("Question: (1) Who? (2) Why?\n\n**Sample Answer:** Bob", "(1) Who? (2) Why?"),
        ('Here is a question:\n\nWho said "I am"', 'Who said "I am"'),
        ("Why?\nA: So.", "Why?"),
        ("A: what?\nB: why?", "A: what?\nB: why?"),
        ('"?"', ""),
    ],
)
def test_a_question_is_found_in_a_reply(reply, question):
    assert find_question(reply) == question


@pytest.mark.parametrize("opening", ["", "<think>"])
def test_thoughts_are_in_no_question_and_no_answer(tmp_path, stub, opening):
    stub.answer = lambda prompt, seed: f"{opening}Question: Why not?</think>\n{well_read(prompt, seed)}"
    write_documents(tmp_path, a__md=words("a"))
    assert main(write_config(tmp_path, stub)) == 0
    rows = made(tmp_path)
    assert rows and {row["answer"] for row in rows} == {f"Behind that comes {words('a').split()[-1]}"}
    assert all("What comes behind" in row["query"] and "Why not" not in row["query"] for row in rows)


def test_thoughts_without_an_answer_give_no_question(tmp_path, stub, capsys):
    def answer(prompt, seed):
        wants_question = "Reply with the question" in prompt
        return well_read(prompt, seed) if wants_question and seed % 2 else "<think>Question: Why not?"

    stub.answer = answer
    write_documents(tmp_path, a__md=words("a"), b__md=words("b"))
    assert main(write_config(tmp_path, stub)) == 1
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["questions"] == 0 and set(summary["questions_left_out"]) == {"unfinished thought"}
    assert "with a thought and no answer" in capsys.readouterr().out


def test_what_is_no_good_is_left_out(tmp_path, stub, capsys):
    asked = {
        "open": "What did the council decide about the harvest in winter?",
        "summary": "**Question:** What, did the council decide about the harvest in winter!",
        "reasoning": "Who sold the engine?",
        "extraction": '"?"',
        "multi_part": "1. When did the voyage begin? 2. Why did the painter not come along?\nAnswer: In May.",
    }
    kinds = {"paragraph to answer": "open", "Ask for a summary": "summary", "stands nowhere": "reasoning"}
    kinds |= {"particular facts": "extraction", "two to four parts": "multi_part"}

    def answer(prompt, seed):
        kind = next((kind for words, kind in kinds.items() if words in prompt), None)
        if kind:
            return asked[kind]
        return "[[Unanswerable]]" if "sold the engine" in prompt else "They decided that the treaty comes first."

    stub.answer = answer
    stub.fail = lambda body: (
        web.json_response(cut)
        if "painter not come" in body["messages"][0]["content"]
        and (cut := stub.reply_to(body))["choices"][0].update(finish_reason="length") is None
        else None
    )
    write_documents(tmp_path, a__txt=words("a"))
    assert main(write_config(tmp_path, stub, questions_per_document=5)) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["questions"] == 1
    left_out = {"asked already": 1, "unanswerable": 1, "no question": 1, "cut off": 1}
    assert summary["questions_left_out"] == left_out
    (row,) = made(tmp_path)
    assert row["kind"] in ("open", "summary") and row["query"].startswith("What") and row["answer"].startswith("They")
    (kept,) = [json.loads(line) for line in (tmp_path / "run/instructions.jsonl").read_text().splitlines()]
    cut_off = next(one for one in kept["written"] if one["outcome"] == "cut off")
    assert cut_off["question"] == "1. When did the voyage begin? 2. Why did the painter not come along?"

    # Nothing good at all: nothing is registered.
    stub.answer = lambda prompt, seed: (
        "Who sold the engine?" if "Reply with the question" in prompt else "unanswerable."
    )
    assert main(write_config(tmp_path, stub, output_dir=str(tmp_path / "other"), dataset_name="other")) == 1
    assert "nothing was registered" in capsys.readouterr().out and not (tmp_path / "data/other.jsonl").exists()


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("Anna Berg was appointed director in March 1932.", "kept"),
        ("Answer: [[unanswerable]]", "unanswerable"),
        ("The document does not say.\n\n[[ Unanswerable ]]", "unanswerable"),
        ("**Answer:**", "unanswerable"),
        ("Who was appointed director in March 1932?", "only repeated"),
    ],
)
def test_answers_are_judged_by_what_they_say(tmp_path, stub, answer, outcome):
    stub.answer = lambda prompt, seed: (
        "Who was appointed director in March 1932?" if "Reply with the question" in prompt else answer
    )
    write_documents(tmp_path, a__txt=words("a"))
    assert main(write_config(tmp_path, stub)) == (outcome != "kept")
    (row,) = [json.loads(line) for line in (tmp_path / "run/instructions.jsonl").read_text().splitlines()]
    assert row["written"][0]["outcome"] == outcome


def test_words_that_a_pdf_divides_are_whole_again(tmp_path):
    write_pdf(tmp_path / "a.pdf", "The commis-\nsion met on an inter-\nnational bridge.\nIt rained.")
    text = read_text(tmp_path / "a.pdf")
    assert re.sub(r"\s+", " ", text) == "The commission met on an international bridge. It rained."
    assert text.isprintable() or set(re.sub(r"[\x20-\x7e]", "", text)) == {"\n"}


def test_texts_that_the_model_could_not_read_whole_are_refused(tmp_path, stub, capsys):
    write_documents(tmp_path, a__txt=words("a", 2000))
    assert main([*write_config(tmp_path, stub), "model.context_window=2000"]) == 2
    assert re.search(r"max_tokens: 'a.txt#\d' with its prompt .* is 2,000; set max_tokens to", capsys.readouterr().err)
    assert not stub.chats and not (tmp_path / "run/config.yaml").exists()


def test_other_documents_in_the_same_folder_do_not_undo_what_is_registered(tmp_path, stub):
    stub.answer = well_read
    write_documents(tmp_path, a__txt=words("a"))
    assert main(write_config(tmp_path, stub)) == 0
    before = (tmp_path / "data/asked.jsonl").read_bytes()
    (tmp_path / "documents/a.txt").rename(tmp_path / "a.txt")
    write_documents(tmp_path, b__txt=words("b"))
    stub.fail = lambda body: web.Response(status=500)
    assert main(write_config(tmp_path, stub)) == 1
    assert json.loads((tmp_path / "run/summary.json").read_text())["questions"] == 0
    assert (tmp_path / "data/asked.jsonl").read_bytes() == before


def test_a_lost_call_costs_its_document_until_the_next_start(tmp_path, stub):
    stub.answer = well_read
    write_documents(tmp_path, **{f"d{number}__txt": words(f"d{number}") for number in range(6)})
    stub.fail = lambda body: web.Response(status=500) if " d3." in body["messages"][0]["content"] else None
    assert main(write_config(tmp_path, stub)) == 1
    assert len(made(tmp_path)) == 5 and "d3.txt" in (tmp_path / "run/failures.jsonl").read_text()
    stub.fail = lambda body: None
    chats = stub.chats
    assert main(write_config(tmp_path, stub)) == 0
    assert stub.chats == chats + 2 and [row["documents"][0] for row in made(tmp_path)] == [
        f"d{i}.txt" for i in range(6)
    ]


def test_the_estimate_announces_the_calls(tmp_path, stub, capsys):
    stub.answer = well_read
    write_documents(tmp_path, a__txt=words("a"), b__txt=words("b"))
    assert main([*write_config(tmp_path, stub, questions_per_document=7), "--estimate"]) == 0
    assert re.search(r"total\s+│\s+28 ", capsys.readouterr().out)
    assert not stub.chats and not (tmp_path / "run").exists()


def test_documents_that_cannot_be_used_are_named_together(tmp_path, stub, capsys):
    from pypdf import PdfWriter

    folder = write_documents(tmp_path, empty__txt=" \n", good__md=words("a"))
    write_pdf(tmp_path / "plain.pdf", words("pdf"))
    secret = PdfWriter(clone_from=tmp_path / "plain.pdf")
    secret.encrypt("secret", algorithm="AES-256")
    secret.write(folder / "secret.pdf")
    blank = PdfWriter()
    blank.add_blank_page(100, 100)
    blank.write(folder / "scan.pdf")
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 and no more")
    (folder / "latin.txt").write_bytes("Straße".encode("latin-1"))
    write_jsonl(folder / "rows.jsonl", [{"text": words("row")}, {"txt": "?"}, 3, {"text": "\ud800"}])
    (folder / "data.JSONL").write_text("{}")
    assert main(write_config(tmp_path, stub)) == 2
    said = capsys.readouterr().err
    for fault in (
        "9 documents cannot be used",
        "empty.txt holds no text; fill it, or remove it from the folder",
        "secret.pdf is encrypted; decrypt it, or remove it from the folder",
        "scan.pdf holds no text; run OCR if its pages are images, or remove it from the folder",
        "torn.pdf cannot be read as PDF",
        "latin.txt is not UTF-8",
        "rows.jsonl, line 2: the field text must be a text that is not empty",
        "rows.jsonl, line 3: the field text must be",
        "rows.jsonl, line 4: the field text holds \\ud800, half of a character",
        "data.JSONL, line 1: the field text must be",
    ):
        assert fault in said
    assert not stub.chats and not (tmp_path / "data").exists() and not (tmp_path / "run/documents.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"min_tokens": 5000, "max_tokens": 6000},
            "no document is left (1 too short); lower min_tokens (5000), or name other documents",
        ),
        ({"min_tokens": 3000}, "max_tokens 1500 is below min_tokens 3000"),
        ({"kinds": ["riddle"]}, "kinds"),
        ({"input": "nothing.pdf"}, "no file nothing.pdf"),
        ({"input": "nothing.jsonl"}, "no file nothing.jsonl"),
        ({"input": "twice.jsonl", "max_tokens": 120}, "id 'a#1' is already used"),
        ({"dataset_dir": "documents"}, "would be written into the input"),
        ({"prompts": "documents"}, "must be a folder with at least one of question_en.txt"),
        ({"max_cost": 1}, "max_cost needs the price"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path, stub, capsys, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    write_documents(tmp_path, a__txt=words("a"))
    write_jsonl(tmp_path / "twice.jsonl", [{"id": "a", "text": words("a", 800)}, {"id": "a#1", "text": words("b", 90)}])
    assert main(write_config(tmp_path, stub, **changes)) == 2
    assert said in capsys.readouterr().err and not stub.chats


def test_documents_that_changed_are_not_mixed_with_what_was_written_before(tmp_path, stub, capsys):
    stub.answer = well_read
    write_documents(tmp_path, a__txt=words("a"))
    assert main(write_config(tmp_path, stub)) == 0
    write_documents(tmp_path, b__txt=words("b"))
    assert main(write_config(tmp_path, stub)) == 0 and len(made(tmp_path)) == 2
    write_documents(tmp_path, a__txt=words("other"))
    assert main(write_config(tmp_path, stub)) == 2
    assert "'a.txt', its prompt or its adapter has changed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_model_on_real_documents(tmp_path):
    from importlib.metadata import files
    from pydoc_data.topics import topics

    licence = next(path for path in files("torch") if path.name == "LICENSE").read_text(encoding="utf-8")
    write_documents(tmp_path, loops__md=topics["for"][:1400], with__md=topics["with"][:1400], torch__txt=licence[:1400])
    model = {"backend": "transformers", "model": "smollm2-135m"}
    changes = {"model": model, "tokenizer": None, "questions_per_document": 2, "kinds": ["open", "extraction"]}
    sampling = {"temperature": 0.3, "max_new_tokens": 120}

    class Nobody:
        base_url = None

    assert main(write_config(tmp_path, Nobody, sampling=sampling, **changes)) == 0
    rows = made(tmp_path)
    assert {row["documents"][0] for row in rows} <= {"loops.md", "with.md", "torch.txt"} and rows
    assert all(row["query"].strip() and row["answer"].strip() for row in rows)
