"""`longpo check` against the real LLaMA-Factory: nothing to report on the shipped recipes, each planted fault found."""

import json
import random
import shutil

import pytest
import torch
import yaml
from conftest import REAL_DATA, REPOSITORY, write_jsonl
from recipes import TRAINING, small
from test_llamafactory import loaded_by_llamafactory

from lf_longpo.cli import main
from lf_longpo.models.embedded import model_path
from lf_longpo.models.number_format import SWITCH
from lf_longpo.plugin.check.deepspeed import Zero
from lf_longpo.plugin.check.fix_lengths import fix_lengths
from lf_longpo.plugin.check.memory_estimate import GIB, Machine, Rows, estimate, measure_model
from lf_longpo.plugin.check.recipe_check import check
from lf_longpo.plugin.recipe import parse_recipe
from lf_longpo.plugin.registry import load_dataset_info


def overrides(changes):
    return [f"{name}={value}" for name, value in changes.items()]


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_the_shipped_recipes_have_no_faults(path, models, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    checked = check(path, overrides(small(path, models(path.stem.split("_")[0]), tmp_path)))
    # The recipes say so themselves: FlashAttention-2 where it is installed.
    warnings = [warning for warning in checked.findings.warnings if warning.where != "flash_attn"]
    assert (checked.findings.errors, warnings) == ([], [])
    (facts,) = checked.findings.facts["datasets"].values()
    assert facts["examples"] == 24 and facts["lose their question"] == 0
    assert all(way["fits"] for way in checked.findings.facts["memory"]["ways"].values())


class Planted:
    """A recipe and a data set without fault, to plant one in.

    Attributes:
        settings: the recipe's.
        entry: the data set's in dataset_info.json.
        rows: the data set's.
    """

    def __init__(self, folder, model):
        self.folder = folder
        self.entry = {
            "file_name": "rows.jsonl",
            "ranking": True,
            "columns": dict.fromkeys(("prompt", "chosen", "rejected")),
        }
        self.entry["columns"] = {column: column for column in self.entry["columns"]}
        self.rows = [
            {"prompt": f"Where is lamp {number}?", "chosen": "It is in the tower.", "rejected": "I do not know that."}
            for number in range(24)
        ]
        self.settings = {
            "model_name_or_path": str(model),
            "stage": "dpo",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset_dir": str(folder),
            "dataset": "lamps",
            "template": "glm4",
            "cutoff_len": 64,
            "output_dir": str(folder / "out"),
            "report_to": "none",
        }

    def found(self):
        """Errors and warnings, as lines `error where: message`."""
        write_jsonl(self.folder / "rows.jsonl", self.rows)
        (self.folder / "dataset_info.json").write_text(json.dumps({"lamps": self.entry}))
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(self.settings))
        findings = check(self.folder / "recipe.yaml", gpus=2, gpu_memory=80).findings
        self.facts = findings.facts
        return [f"error {where}: {message}" for where, message in findings.errors] + [
            f"warning {where}: {message}" for where, message in findings.warnings
        ]


@pytest.fixture
def planted(tmp_path, models):
    return Planted(tmp_path, models("glm4"))


def test_a_sound_recipe_has_no_findings(planted):
    assert planted.found() == []


SETTINGS = {
    "unknown key": (
        {"learning_rat": 1e-5},
        "error learning_rat: LLaMA-Factory has no such setting; did you mean learning_rate",
    ),
    "misspelt choice": ({"pref_loss": "sigmoidd"}, "error pref_loss: must be one of sigmoid, hinge, ipo"),
    "text for a switch": ({"bf16": "false"}, "error bf16: must be true or false, not 'false'"),
    "text for a number": ({"lora_rank": "eight"}, "error lora_rank: must be a whole number, not 'eight'"),
    "refused": (
        {"stage": "sft", "dpo_label_smoothing": 0.1, "neat_packing": True, "do_predict": True},
        "LLaMA-Factory refuses it",
    ),
    "smoothing with another loss": (
        {"pref_loss": "hinge", "dpo_label_smoothing": 0.1},
        "refuses it: `dpo_label_smoothing`",
    ),
    "ignored: another tuning": (
        {"freeze_trainable_layers": 2},
        "warning freeze_trainable_layers: is ignored; it is only read by",
    ),
    "ignored: another loss": ({"pref_loss": "simpo", "ref_model": "x"}, "warning ref_model: is ignored"),
    "ignored: no evaluation": ({"val_size": 0.1}, "warning val_size: is ignored"),
    "data set not registered": ({"dataset": "lmaps"}, "error dataset lmaps: is not registered in"),
    "not registered, nearest": ({"dataset": "lmaps"}, "did you mean lamps?"),
    "pairs in an SFT stage": ({"stage": "sft"}, "error dataset lamps: holds pairs (ranking: true), but stage sft"),
    "unknown template": ({"template": "lama3"}, "error template: LLaMA-Factory has no template 'lama3'; did you mean"),
    "another model's template": (
        {"template": "llama3"},
        "error template: 'llama3' does not fit the tokenizer, which lacks <|start_header_id|>, <|end_header_id|>",
    ),
    "no such model": (
        {"model_name_or_path": "saves/nothing"},
        "error model_name_or_path: saves/nothing does not exist; set model_name_or_path to a model folder or a hub",
    ),
    "longer than the model": ({"cutoff_len": 4096}, "warning cutoff_len: 4096 exceeds the model's 2048 positions"),
    "no DeepSpeed file": ({"deepspeed": "yaml/ds_z9.json"}, "error deepspeed: no file yaml/ds_z9.json"),
    "questions lost": ({"cutoff_len": 16}, "of 24 examples lose their question"),
    "too large for the GPU": (
        {"cutoff_len": 2048, "per_device_train_batch_size": 4096},
        "warning memory: a step of llamafactory-cli train needs about",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_a_fault_of_the_recipe_is_found(planted, changes, expected):
    planted.settings |= changes
    if "per_device_train_batch_size" in changes:
        planted.rows[0]["prompt"] = "lamp " * 1900
    found = planted.found()
    assert any(expected in line for line in found), found


def plant_deepspeed(planted, text):
    (planted.folder / "ds.json").write_text(text)
    planted.settings["deepspeed"] = str(planted.folder / "ds.json")


def other_rows(planted, **changes):
    planted.rows = [row | changes for row in planted.rows]


DATA = {
    "file missing": (lambda p: p.entry.update(file_name="nothing.jsonl"), "error dataset lamps: its file"),
    "column missing": (
        lambda p: p.entry["columns"].update(chosen="win"),
        "no column 'win' for chosen; it has prompt, chosen",
    ),
    "column not named": (lambda p: p.entry["columns"].pop("rejected"), "no column 'rejected' for rejected"),
    "no pairs in a DPO stage": (
        lambda p: p.entry.pop("ranking"),
        "holds no pairs (no ranking: true in its entry), but stage dpo",
    ),
    "broken JSON": (lambda p: p.entry.update(file_name="recipe.yaml"), "cannot be loaded"),
    "empty response": (lambda p: p.rows[3].update(chosen=" "), "error dataset lamps: row 4 has an empty response"),
    "same response": (
        lambda p: p.rows[3].update(rejected=p.rows[3]["chosen"]),
        "row 4 has the same response as chosen and rejected",
    ),
    "null response": (
        lambda p: p.rows[3].update(chosen=None),
        "warning dataset lamps: row 4 cannot be used; row 4: LLaMA-Factory drops it: 'chosen' is null",
    ),
    "duplicate": (lambda p: p.rows.append(p.rows[0]), "warning dataset lamps: row 25 repeats an earlier row"),
    "length bias": (
        lambda p: other_rows(p, chosen="It is in the tower. " * 2),
        "warning dataset lamps: chosen responses have",
    ),
    "response lost": (lambda p: p.rows[3].update(rejected="no " * 90), "1 of 24 examples lose the end of a response"),
    "DeepSpeed contradicts": (
        lambda p: plant_deepspeed(p, '{"train_micro_batch_size_per_gpu": 7, "zero_optimization": {"stage": 2}}'),
        "train_micro_batch_size_per_gpu=7 contradicts the recipe's per_device_train_batch_size=8",
    ),
    "DeepSpeed's GPUs": (
        lambda p: plant_deepspeed(p, '{"train_batch_size": 8}'),
        "contradicts the recipe's train_batch_size (calculated)=16",
    ),
    "DeepSpeed is not JSON": (lambda p: plant_deepspeed(p, "{"), "is not JSON"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "expected"), DATA.values(), ids=DATA)
def test_a_fault_of_the_data_or_deepspeed_is_found(planted, plant, expected):
    plant(planted)
    found = planted.found()
    assert any(expected in line for line in found), found


def real_prompts():
    """Prompts of 60 to 10,000 tokens, each with another question at the end."""
    chance = random.Random(0)
    long = [json.loads(line) for line in (REAL_DATA / "longreward_sft.jsonl").read_text().splitlines()]
    texts = [f"{row['context']}\n\n{row['query']}" for row in long[:1]]
    for row in json.loads((REAL_DATA / "musique_train_100.json").read_text()):
        paragraphs = [paragraph["paragraph_text"] for paragraph in row["paragraphs"]]
        texts.append("\n".join([*paragraphs[: chance.randint(1, 20)], row["question"]]))
    return texts


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data are next to the checkout")
@pytest.mark.parametrize(
    ("template", "stage"), [("llama3", "dpo"), ("qwen", "dpo"), ("glm4", "dpo"), ("llama3", "sft")]
)
def test_the_count_of_lost_questions_is_what_llamafactory_encodes(models, tmp_path, template, stage):
    family = {"qwen": "qwen2"}.get(template, template)
    prompts = real_prompts()
    rows = [{"prompt": prompt, "chosen": "It is so. " * 30, "rejected": "It is not so. " * 24} for prompt in prompts]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    entry = {"file_name": "rows.jsonl", "ranking": True, "columns": columns}
    if stage == "sft":
        entry = {"file_name": "rows.jsonl", "columns": {"prompt": "prompt", "response": "chosen"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"codes": entry}))
    settings = {
        "model_name_or_path": str(models(family)), "stage": stage, "do_train": True, "finetuning_type": "lora",
        "dataset_dir": str(tmp_path), "dataset": "codes", "template": template, "cutoff_len": 2000,
        "per_device_train_batch_size": 1, "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    checked = check(tmp_path / "recipe.yaml")
    facts = checked.findings.facts["datasets"]["codes"]

    def lost(name):
        """Number of examples that lack the last words of their prompt in the encoding of LLaMA-Factory's loader."""
        tokenizer, examples = loaded_by_llamafactory(tmp_path, template, 2000, stage, models(family), name)
        ids = "chosen_input_ids" if stage == "dpo" else "input_ids"
        decoded = [tokenizer.decode(example[ids]) for example in examples]
        return sum(prompt[-40:] not in text for prompt, text in zip(prompts, decoded, strict=True))

    assert facts["examples"] == len(prompts) > 100
    assert 10 < facts["lose their question"] == lost("codes") < 80

    (fixed,) = fix_lengths(checked)
    assert fixed.cut == facts["longer than cutoff_len"] and not fixed.left_out
    assert load_dataset_info(tmp_path)[fixed.name] == entry | {"file_name": f"{fixed.name}.jsonl"}
    assert lost(fixed.name) == 0
    again = check(tmp_path / "recipe.yaml", [f"dataset={fixed.name}"])
    assert (again.findings.errors, again.findings.warnings) == ([], [])
    assert again.findings.facts["datasets"][fixed.name]["tokens"]["max"] in range(1985, 2001)
    for row, line in zip(rows, (tmp_path / f"{fixed.name}.jsonl").read_text().splitlines(), strict=True):
        cut = json.loads(line)
        assert cut["prompt"][:100] == row["prompt"][:100] and cut["prompt"][-100:] == row["prompt"][-100:]
        assert (cut["chosen"], cut["rejected"]) == (row["chosen"], row["rejected"])


@pytest.mark.slow
def test_messages_are_cut_and_rows_that_cannot_be_cut_are_skipped(planted):
    long = "The lamp is lit. " * 50 + "Where is it?"
    chats = [
        [{"from": "human", "value": f"{number} {long}"}, {"from": "gpt", "value": answer}]
        for number, answer in enumerate(["In the tower.", "word " * 100, "There."])
    ]
    planted.entry = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    planted.rows = [{"conversations": chat} for chat in chats]
    planted.settings["stage"] = "sft"
    assert any("3 of 3 examples lose their question" in line for line in planted.found())
    assert main(["check", str(planted.folder / "recipe.yaml"), "--fix-lengths"]) == 2
    copies = [json.loads(line) for line in (planted.folder / "lamps_fit64.jsonl").read_text().splitlines()]
    assert [row["conversations"][1]["value"] for row in copies] == ["In the tower.", "There."]
    assert all(row["conversations"][0]["value"].endswith("Where is it?") for row in copies)
    planted.settings["dataset"] = "lamps_fit64"
    (planted.folder / "recipe.yaml").write_text(yaml.safe_dump(planted.settings))
    assert main(["check", str(planted.folder / "recipe.yaml")]) == 0


@pytest.mark.slow
def test_the_command_reports_as_json_and_as_text(planted, capsys):
    planted.rows[0]["chosen"] = ""
    planted.found()
    recipe = str(planted.folder / "recipe.yaml")
    assert main(["check", recipe, "--json", "learning_rate=2e-5"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == [{"where": "dataset lamps", "message": "row 1 has an empty response; remove it"}]
    assert report["warnings"] == [] and report["facts"]["datasets"]["lamps"]["examples"] == 24
    assert main(["check", recipe]) == 2
    assert "error  dataset lamps: row 1 has an empty response" in capsys.readouterr().out
    assert main(["check", recipe, "learning_rate"]) == 2
    assert "must have the form key=value" in capsys.readouterr().err
    assert main(["check", str(planted.folder / "no.yaml")]) == 2
    assert "no recipe" in capsys.readouterr().err


LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}


@pytest.mark.slow
def test_the_memory_of_an_8b_model_at_64k(tmp_path, models, monkeypatch):
    from transformers import AutoConfig

    shutil.copytree(models("llama3"), tmp_path / "model", dirs_exist_ok=True)
    (tmp_path / "model/config.json").write_text(json.dumps(LLAMA_8B))
    monkeypatch.chdir(REPOSITORY)
    settings = {"model_name_or_path": str(tmp_path / "model"), "stage": "dpo", "do_train": True, "dataset": "x"}
    settings |= {"finetuning_type": "full", "output_dir": str(tmp_path / "out"), "bf16": True, "use_cpu": True}
    run = parse_recipe(settings | {"per_device_train_batch_size": 1})
    model = measure_model(AutoConfig.from_pretrained(tmp_path / "model"), run)
    assert model.parameters == 8_030_261_248 == model.trained
    parts, total = estimate(
        model, run, Zero(stage=3), Machine(8, 80 * GIB, ""), Rows(2, 65536, 2 * 65536, masked=False)
    )
    assert parts["weights"] == parts["gradients"] == parts["reference model"] == 2 * 8_030_261_248 / 8
    assert parts["optimizer"] == 12 * 8_030_261_248 / 8
    assert parts["logits"] == 5 * 67_243_081_728  # five times what the float32 logits take
    assert sum(parts.values()) > total > 80 * GIB
    lora = measure_model(
        AutoConfig.from_pretrained(tmp_path / "model"), parse_recipe(settings | {"finetuning_type": "lora"})
    )
    assert lora.trained == 20_971_520  # rank 8 on all linear layers of Llama-3-8B, as peft counts it


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", [True, False])
def test_the_quickstarts_recipe_is_sound(tmp_path, monkeypatch, bfloat16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": bfloat16})
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.chdir(REPOSITORY)
    pair = {"prompt": "Where?", "chosen": "In the tower.", "rejected": "I do not know."}
    write_jsonl(tmp_path / "rows.jsonl", [pair | {"prompt": f"Where {number}?"} for number in range(4)])
    entry = {"file_name": "rows.jsonl", "ranking": True, "columns": {key: key for key in pair}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"smollm2_longmab_dpo": entry}))
    changes = {
        "dataset_dir": tmp_path,
        "output_dir": tmp_path / "out",
        "model_name_or_path": model_path("smollm2-135m"),
    }
    findings = check("yaml/smollm2_dpo.yaml", overrides(changes)).findings
    assert findings.errors == []
    # A CPU without bfloat16 is no fault of the recipe; longpo train computes in float32 there.
    assert [where for where, _ in findings.warnings] == ([] if bfloat16 else ["bf16"])
