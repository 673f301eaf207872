"""Folders of models, adapters, embedders and tokenizers that cannot be loaded: one error each, with its fix."""

import json
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY, write_jsonl
from stub import MODEL

from lf_longpo.cli import main
from lf_longpo.config import ChatConfig
from lf_longpo.errors import UserError
from lf_longpo.models.folders import (
    adapter_problem,
    check_chat_folders,
    embedder_problem,
    is_path,
    model_problem,
    tokenizer_problem,
)


def write(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a sound model and a sound adapter of it."""
    monkeypatch.chdir(tmp_path)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        write(tmp_path / "sound" / name)
    write(tmp_path / "adapter/adapter_config.json", json.dumps({"base_model_name_or_path": "sound"}))
    write(tmp_path / "adapter/adapter_model.safetensors")
    return tmp_path


def test_paths_are_told_from_hub_names(here):
    (here / "org").mkdir()
    paths = ["./x", "../x", "~/x", "/x/y", "a/b/c", "sound", "org/x", "models/x", "saves/x"]
    assert [name for name in paths if not is_path(name)] == []
    assert [name for name in ("gpt2", "Qwen/Qwen2.5-7B-Instruct", "smollm2-135m") if is_path(name)] == []


def test_a_cached_hub_model_is_none_of_a_folder_with_its_owners_name(here, monkeypatch):
    (here / "org").mkdir()
    kept = here / "cache/models--org--x"
    write(kept / "refs/main", "abc")
    write(kept / "snapshots/abc/config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "cache"))
    assert not is_path("org/x") and is_path("org/y")


def test_sound_folders_have_no_problem(here):
    assert model_problem("sound", "model", "adapter") is None
    assert adapter_problem("adapter", "adapter", "model") is None
    assert tokenizer_problem("sound", "tokenizer") is None
    assert embedder_problem("sound", "embedder.model") is None
    assert model_problem("Qwen/Qwen2.5-7B-Instruct", "model", "adapter") is None


def sharded(folder):
    for number in (1, 3):
        write(folder / f"model-{number}.safetensors")
    write(
        folder / "model.safetensors.index.json",
        json.dumps({"weight_map": {f"w{n}": f"model-{n}.safetensors" for n in (1, 2, 3)}}),
    )


ANOTHER = "set model to a model folder or a hub name"
MODELS = {
    "absent": (lambda path: None, f"bad does not exist; {ANOTHER}"),
    "broken link": (
        lambda path: path.symlink_to("[WARNING] no path"),
        f"bad is a symbolic link to [WARNING] no path, which does not exist; {ANOTHER}",
    ),
    "file": (lambda path: write(path), f"bad is a file, not a folder; {ANOTHER}"),
    "empty": (lambda path: path.mkdir(), f"bad is not a model folder: it has no config.json; {ANOTHER}"),
    "no weights": (lambda path: write(path / "config.json"), f"bad has no weights (model.safetensors); {ANOTHER}"),
    "no weights but training's files": (
        lambda path: (write(path / "config.json"), write(path / "training_args.bin")),
        f"bad has no weights (model.safetensors); {ANOTHER}",
    ),
    "torn configuration": (
        lambda path: write(path / "config.json", '{"a'),
        "bad/config.json cannot be read as JSON; copy or download the model again",
    ),
    "shard missing": (
        lambda path: (write(path / "config.json"), sharded(path)),
        "bad lacks 1 of the 3 weight files that model.safetensors.index.json names (model-2.safetensors); copy or "
        "download the model again",
    ),
    "Git LFS pointer": (
        lambda path: (write(path / "config.json"), write(path / "model.safetensors", "version https://git-lfs.x/v1")),
        "bad/model.safetensors is a Git LFS pointer, not the weights; run `git lfs pull` in bad",
    ),
    "adapter": (
        lambda path: write(path / "adapter_config.json", '{"base_model_name_or_path": "org/base"}'),
        "bad is a LoRA adapter, not a whole model; set model: org/base and adapter: bad",
    ),
    "adapter that names no base": (
        lambda path: write(path / "adapter_config.json"),
        "bad is a LoRA adapter, not a whole model; set model: its base model and adapter: bad",
    ),
    "adapter without its base": (
        lambda path: write(path / "adapter_config.json", '{"base_model_name_or_path": "./gone"}'),
        "bad is a LoRA adapter, not a whole model, and its base model is missing: ./gone does not exist; set model to "
        "the folder or hub name of that base model, and set adapter: bad",
    ),
    "adapter without the embedded model": (
        lambda path: write(path / "adapter_config.json", '{"base_model_name_or_path": "models/smollm2-135m"}'),
        "bad is a LoRA adapter, not a whole model, and its base model is missing: models/smollm2-135m does not exist; "
        "make it with `bash scripts/setup.sh`, and set adapter: bad",
    ),
}


@pytest.mark.parametrize(("plant", "expected"), MODELS.values(), ids=MODELS)
def test_a_folder_that_is_no_model(here, plant, expected):
    plant(here / "bad")
    problem = model_problem("./bad", "model", "adapter")
    assert problem and problem.replace("./bad", "bad") == expected
    with pytest.raises(UserError, match=r"^model: "):
        check_chat_folders(ChatConfig(backend="transformers", model="./bad"))


ADAPTER = "set adapter to the output_dir of a LoRA training, or remove it"
ADAPTERS = {
    "absent": (lambda path: None, f"./bad does not exist; {ADAPTER}"),
    "no adapter": (
        lambda path: path.mkdir(),
        f"./bad is not an adapter folder: it has no adapter_config.json; {ADAPTER}",
    ),
    "whole model": (
        lambda path: write(path / "config.json"),
        "./bad is a whole model, not an adapter; set model: ./bad and remove adapter",
    ),
    "no weights": (
        lambda path: write(path / "adapter_config.json"),
        f"./bad has no weights (adapter_model.safetensors); {ADAPTER}",
    ),
}


@pytest.mark.parametrize(("plant", "expected"), ADAPTERS.values(), ids=ADAPTERS)
def test_a_folder_that_is_no_adapter(here, plant, expected):
    plant(here / "bad")
    assert adapter_problem("./bad", "adapter", "model") == expected
    with pytest.raises(UserError, match=r"^adapter: "):
        check_chat_folders(ChatConfig(backend="transformers", model="sound", adapter="./bad"))


def test_what_makes_a_folder_is_named(here, monkeypatch):
    assert model_problem("models/smollm2-135m", "model", "adapter") == (
        "models/smollm2-135m does not exist; make it with `bash scripts/setup.sh`"
    )
    (here / "models").mkdir()
    (here / "models/smollm2-135m").symlink_to("gone")
    assert model_problem("models/smollm2-135m", "model", "adapter") == (
        "models/smollm2-135m is a symbolic link to gone, which does not exist; make it with `bash scripts/setup.sh`"
    )
    assert model_problem("saves/x", "model", "adapter", made_by="longpo train x.yaml") == (
        "saves/x does not exist; make it with `longpo train x.yaml`"
    )
    monkeypatch.setenv("HOME", str(here))
    assert model_problem("~/sound", "model", "adapter") == (
        f"~/sound does not exist, because `~` is not expanded in settings; write {here}/sound; {ANOTHER}"
    )


def test_a_broken_link_above_a_model_is_named(here):
    (here / "models").symlink_to("/nowhere")
    problem = model_problem("models/mine", "model", "adapter")
    assert problem == f"models is a symbolic link to /nowhere, which does not exist; {ANOTHER}"


def test_a_tokenizer_or_an_embedder_that_is_not_there(here):
    (here / "bad").mkdir()
    assert tokenizer_problem("./bad", "tokenizer") == (
        "./bad has no tokenizer (tokenizer.json); set tokenizer to a model folder or a hub name"
    )
    assert embedder_problem("./bad", "embedder.model").startswith("./bad is not a model folder: it has no config.json")
    write(here / "bad/modules.json")
    assert embedder_problem("./bad", "embedder.model") is None


GENERATION = {
    "policy": (
        {"policy": {"backend": "transformers", "model": "./bad"}},
        "error: policy.model: ./bad does not exist; set",
    ),
    "policy that is an adapter": (
        {"policy": {"backend": "transformers", "model": "./adapter"}},
        "error: policy.model: ./adapter is a LoRA adapter, not a whole model; set policy.model: sound and "
        "policy.adapter: ./adapter",
    ),
    "tokenizer": ({"tokenizer": "./bad"}, "error: tokenizer: ./bad does not exist; set tokenizer to"),
    "embedder": (
        {"tokenizer": "smollm2-135m", "embedder": {"model": "./bad"}},
        "error: embedder.model: ./bad does not exist; set embedder.model to",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), GENERATION.values(), ids=GENERATION)
def test_a_generation_ends_with_one_line_and_writes_nothing(here, stub, capsys, changes, expected):
    write_jsonl(
        here / "questions.jsonl", [{"id": "1", "question": "Where?", "answer": "Here.", "context": "It is here."}]
    )
    server = {"backend": "openai", "model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY"}
    settings = {
        "method": "longmab",
        "input": "questions.jsonl",
        "output_dir": "run",
        "dataset_name": "codes",
        "policy": server | {"context_window": 4096},
        "pairs": {"template": "smollm2", "cutoff_len": 512},
    }
    (here / "run.yaml").write_text(yaml.safe_dump(settings | changes))
    assert main(["generate", "run.yaml"]) == 2
    error = capsys.readouterr().err.removeprefix("loading ...\n")  # printed before heavy imports
    assert error.startswith(expected) and error.count("\n") == 1
    assert not (here / "run").exists()


def test_nothing_heavy_is_imported_to_look_at_folders(here):
    code = (
        "import sys; from lf_longpo.models.folders import model_problem;"
        "from lf_longpo.plugin.check.prerequisites import check_prerequisites;"
        "model_problem('./bad', 'model', 'adapter');"
        "print([name for name in ('torch', 'transformers', 'llamafactory') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout == "[]\n"
