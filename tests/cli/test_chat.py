"""`longpo chat`: the prompt, the answers and the notes; the base model of an adapter; mistakes end in one line."""

import io
import json

import pytest
from stub import MODEL, Stub

from lf_longpo.cli import main
from lf_longpo.evaluation.ask_document import chat_settings
from lf_longpo.models.embedded import model_path

DOCUMENT = "The bridge over the Litz was built in 1931 by Anna Keller."


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "bridge.txt"
    path.write_text(DOCUMENT)
    return str(path)


@pytest.fixture
def echo(key):
    """A server that replies with the prompt."""
    with Stub(answer=lambda prompt, seed: f"<{prompt}>") as server:
        yield server


def on(server, *more):
    return [f"base_url={server.base_url}", "api_key_env=STUB_KEY", "tokenizer=smollm2-135m", *more]


def ask(server, document, *more):
    return main(["chat", MODEL, "--context", document, *more, *on(server)])


def test_each_question_stands_alone_after_the_document(echo, document, capsys):
    assert ask(echo, document, "--question", "Who?", "--question", "When?") == 0
    assert capsys.readouterr() == (f"<{DOCUMENT}\n\nWho?>\n<{DOCUMENT}\n\nWhen?>\n", "")


def test_questions_are_read_line_by_line(echo, document, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?\n\n  \nWhen?"))
    assert ask(echo, document) == 0
    assert capsys.readouterr() == (f"<{DOCUMENT}\n\nWho?>\n<{DOCUMENT}\n\nWhen?>\n", "")


def test_another_prompt_and_a_document_in_html(echo, tmp_path, capsys):
    prompt, page = tmp_path / "p.txt", tmp_path / "page.html"
    prompt.write_text("Q: {question} D: {context}")
    page.write_text(f"<html><body><article><p>{DOCUMENT}</p></article></body></html>")
    assert ask(echo, str(page), "--question", "Who?", "--prompt", str(prompt)) == 0
    assert capsys.readouterr().out == f"<Q: Who? D: {DOCUMENT}>\n"


def test_a_long_document_loses_its_middle_and_one_note_says_so(echo, tmp_path, capsys):
    path = tmp_path / "long.md"
    path.write_text("first " + "middle " * 500 + "last")
    small = ("context_window=200", "sampling.max_new_tokens=20")
    assert ask(echo, str(path), "--question", "Who?", "--question", "When?", *small) == 0
    out, err = capsys.readouterr()
    assert out.count("first") == out.count("last\n\n") == out.count("\n...\n") == 2 and out.count("middle") < 400
    assert err == "note: the document does not fit the window of 200 tokens; its middle was cut\n"


def test_a_truncated_answer_is_noted(key, document, capsys):
    with Stub(answer=lambda prompt, seed: "It was") as server:
        plain = server.reply_to
        server.reply_to = lambda body: _cut_off(plain(body))
        assert ask(server, document, "--question", "Who?") == 0
    out, err = capsys.readouterr()
    assert out == "It was\n"
    assert err == "note: the answer reached its limit of new tokens; raise sampling.max_new_tokens\n"


def _cut_off(reply):
    reply["choices"][0]["finish_reason"] = "length"
    return reply


def test_a_question_that_fails_does_not_end_the_others(echo, document, capsys):
    long = "Who? " * 400
    assert ask(echo, document, "--question", long, "--question", "Who?", "context_window=200",
               "sampling.max_new_tokens=20") == 1  # fmt: skip
    out, err = capsys.readouterr()
    assert out == f"<{DOCUMENT}\n\nWho?>\n"
    assert err.startswith("error: the prompt does not fit the model's window: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m"], "the following arguments are required: --context; run `longpo chat --help`"),
        (["m", "--context", "none.txt"], "no file none.txt; check the path"),
        (["m", "--context", "f.docx"], "f.docx has an unknown type; convert it to one of .txt, .md, .html, .htm, .pdf"),
        (["saves/none", "--context", "f.txt"], "settings.model: saves/none does not exist; set settings.model"),
        (["m", "--context", "f.txt", "--prompt", "short"], "--prompt: no prompt 'short'; use one of brief, plain"),
        (["m", "--context", "f.txt", "modle=x"], "settings: unknown key modle; did you mean model?"),
        (["m", "--context", "f.txt", "batch=true", "base_url=http://h/v1"], "batch: a batch takes up to a day"),
        (["m", "--context", "f.txt", "--max_new_tokens", "9"], "write sampling.max_new_tokens=9"),
    ],
)  # fmt: skip
def test_mistakes(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.txt").write_text(DOCUMENT)
    (tmp_path / "f.docx").write_text(DOCUMENT)
    try:
        exit_code = main(["chat", *arguments, "--question", "Who?"])
    except SystemExit as end:  # by argparse
        exit_code = end.code
    out, err = capsys.readouterr()
    assert (exit_code, out, err.count("\n")) == (2, "", 1) and message in err, err


def test_the_backend_and_the_base_model_follow_from_the_name(tmp_path):
    adapter = tmp_path / "saves"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    name = str(adapter)
    here = chat_settings(name, [])
    assert (here.backend, here.model, here.adapter) == ("transformers", "some/base", name)
    moved = chat_settings(name, ["model=/elsewhere/base"])
    assert (moved.model, moved.adapter) == ("/elsewhere/base", name)
    for address in ("base_url=http://h/v1", "provider=local"):
        served = chat_settings(name, [address])
        assert (served.backend, served.model, served.adapter) == ("openai", name, None)
    assert chat_settings("some/model", []).adapter is None


@pytest.mark.slow
def test_the_embedded_model_and_an_adapter_of_it_answer(document, tmp_path, capsys):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = str(model_path("smollm2-135m"))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["v_proj"], r=2))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(tmp_path / "adapter")
    answers = []
    for name in ("smollm2-135m", base, str(tmp_path / "adapter")):
        arguments = ["--context", document, "--question", "Who built the bridge?", "sampling.max_new_tokens=12"]
        assert main(["chat", name, *arguments]) == 0
        answers.append(capsys.readouterr().out)
    assert "The bridge over the Litz" in answers[0] and answers[0] == answers[1] != answers[2]
