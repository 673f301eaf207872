"""The data in the real LLaMA-Factory: its loader, and its trainer on a tiny model."""

import json
import sys

import pytest
import yaml
from conftest import REPOSITORY, code_questions, graded, judged, run_settings, write_jsonl
from prepared import Prepared
from stub import Stub

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig
from lf_longpo.generation.generate import generate
from lf_longpo.models.embedded import model_path
from lf_longpo.plugin.encoding import TemplateEncoder
from lf_longpo.plugin.registry import load_dataset_info
from lf_longpo.text.prompts import QA_PROMPTS

ENDING = (QA_PROMPTS / "reasoning.txt").read_text(encoding="utf-8").strip()[-60:]


def loaded_by_llamafactory(folder, template, cutoff_len, stage="dpo", model=None, dataset="codes"):
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, _, _ = get_train_args(
        {
            "stage": stage,
            "do_train": True,
            "finetuning_type": "lora",
            "model_name_or_path": str(model or model_path("smollm2-135m")),
            "dataset_dir": str(folder),
            "dataset": dataset,
            "template": template,
            "cutoff_len": cutoff_len,
            "output_dir": str(folder / "out"),
            "overwrite_cache": True,
            "use_cpu": True,
            "bf16": False,
        }
    )
    module = load_tokenizer(model_args)
    fitted = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    module_of_data = get_dataset(
        fitted, model_args, data_args, training_args, **module, stage={"dpo": "rm"}.get(stage, stage)
    )
    return module["tokenizer"], list(module_of_data["train_dataset"])


def longmab_run(stub, folder):
    data = run_settings(stub, folder, write_jsonl(folder / "questions.jsonl", code_questions(5)))
    data["longmab"]["rounds"] = 12
    return data, ENDING


def longreward_run(stub, folder):
    stub.answer = judged
    data = run_settings(stub, folder, write_jsonl(folder / "questions.jsonl", code_questions(3)))
    del data["longmab"]
    data |= {"method": "longreward", "judge": data["policy"], "longreward": {"num_samples": 5, "chunk_size": 512}}
    return data, ""


@pytest.mark.parametrize(
    ("run", "template", "cutoff_len"),
    [
        (longmab_run, "smollm2", 300),
        pytest.param(longmab_run, "llama3", 301, marks=pytest.mark.slow),
        pytest.param(longmab_run, "qwen", 410, marks=pytest.mark.slow),
        pytest.param(longmab_run, "glm4", 260, marks=pytest.mark.slow),
        pytest.param(longreward_run, "llama3", 200, marks=pytest.mark.slow),
    ],
)
async def test_no_pair_is_truncated_by_llamafactorys_loader(stub, tmp_path, run, template, cutoff_len):
    data, ending = run(stub, tmp_path)
    data["pairs"] = {"template": template, "cutoff_len": cutoff_len}
    result = await generate(GenerateConfig.model_validate(data))
    pairs = [json.loads(line) for line in (tmp_path / "data/codes.jsonl").read_text().splitlines()]
    tokenizer, examples = loaded_by_llamafactory(tmp_path / "data", template, cutoff_len)
    assert len(examples) == len(pairs) == result.summary["pairs"] > 2
    encoder = TemplateEncoder(template, "smollm2-135m", 10**6)
    for pair, example in zip(pairs, examples, strict=True):
        longest = 0
        for side in ("chosen", "rejected"):
            ids, labels = example[f"{side}_input_ids"], example[f"{side}_labels"]
            prompt_length, response_length = encoder.length(pair["prompt"], pair[side])
            assert len(ids) == prompt_length + response_length <= cutoff_len
            assert labels.count(-100) == prompt_length
            longest = max(longest, len(ids))
            text = tokenizer.decode(ids)
            assert pair["input"] in text and ending in text and pair[side] in text
        assert longest > cutoff_len - 12  # no more is cut than has to be


@pytest.mark.slow
@pytest.mark.parametrize(("template", "cutoff_len"), [("smollm2", 300), ("llama3", 320)])
async def test_pairs_of_a_question_have_the_same_prompt_token_for_token(key, tmp_path, template, cutoff_len):
    with Stub(graded) as stub:
        data, ending = longmab_run(stub, tmp_path)
        data["pairs"] = {"template": template, "cutoff_len": cutoff_len, "per_question": 4, "choose": "all"}
        await generate(GenerateConfig.model_validate(data))
    pairs = [json.loads(line) for line in (tmp_path / "data/codes.jsonl").read_text().splitlines()]
    tokenizer, examples = loaded_by_llamafactory(tmp_path / "data", template, cutoff_len)
    prompts: dict[str, set] = {}
    for pair, example in zip(pairs, examples, strict=True):
        for side in ("chosen", "rejected"):
            ids, labels = example[f"{side}_input_ids"], example[f"{side}_labels"]
            prompt = tuple(ids[: labels.count(-100)])
            prompts.setdefault(pair["question_id"], set()).add(prompt)
            assert len(ids) <= cutoff_len and ending in tokenizer.decode(prompt)
            assert pair[side] in tokenizer.decode(ids[len(prompt) :])
    assert len(pairs) > len(prompts) > 1
    assert all(len(of_question) == 1 for of_question in prompts.values())
    assert len({prompt for of_question in prompts.values() for prompt in of_question}) == len(prompts)


@pytest.mark.parametrize(("name", "stage"), [("longreward_sft", "sft"), ("longreward_dpo_glm4", "dpo")])
def test_the_entries_of_longreward_10k_fit_its_columns(tmp_path, name, stage):
    """The released data, with its columns but from a file: no hub is in reach of the tests."""
    info = load_dataset_info(REPOSITORY / "dataset_info")
    assert info["longreward_dpo_llama3"] == info["longreward_dpo_glm4"] | {"split": "dpo_llama3.1_8b"}
    assert {info[f"longreward_{part}"]["hf_hub_url"] for part in ("sft", "dpo_glm4")} == {"THUDM/LongReward-10k"}
    entry = {key: value for key, value in info[name].items() if key not in ("hf_hub_url", "split")}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"codes": entry | {"file_name": "rows.jsonl"}}))
    row = {"idx": 1, "context": "The lamp is lit.", "query": "Is it?", "answer": "It is."}
    row |= {"win_response": "Yes.", "lose_response": "No."} if stage == "dpo" else {}
    write_jsonl(tmp_path / "rows.jsonl", [row, row])
    tokenizer, examples = loaded_by_llamafactory(tmp_path, "smollm2", 128, stage)
    first = examples[0]
    texts = [
        tokenizer.decode(first[key]) for key in ("chosen_input_ids", "rejected_input_ids", "input_ids") if key in first
    ]
    answers = ["Yes.", "No."] if stage == "dpo" else ["It is."]
    for text, answer in zip(texts, answers, strict=True):
        assert f"user\nThe lamp is lit.\nIs it?<|im_end|>\n<|im_start|>assistant\n{answer}" in text


@pytest.mark.slow
def test_a_pair_data_set_trains_a_lora_adapter(tmp_path):
    """The shipped recipe with a tiny model of the same architecture, four steps of llamafactory-cli."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(model_path("smollm2-135m"))
    tiny = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=2, bos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(tiny).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    pair = {"prompt": "Text. Question: why?", "chosen": "Answer: so.", "rejected": "I cannot tell."}
    write_jsonl(tmp_path / "pairs.jsonl", [pair] * 8)
    register = ["register", str(tmp_path / "pairs.jsonl"), "--name", "tiny", "--dataset-dir", str(tmp_path)]
    assert main(register) == 0

    recipe = yaml.safe_load((REPOSITORY / "yaml/smollm2_dpo.yaml").read_text())
    recipe |= {
        "model_name_or_path": str(tmp_path / "tiny"),
        "dataset_dir": str(tmp_path),
        "dataset": "tiny",
        "output_dir": str(tmp_path / "saved"),
        "max_steps": 4,
        "bf16": False,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "llamafactory.cli", "train", str(tmp_path / "recipe.yaml")]
    run = Prepared(command, tmp_path)
    assert run.wait(300) == 0, run.stderr.read()[-3000:]
    assert (tmp_path / "saved/adapter_model.safetensors").is_file()
    state = json.loads((tmp_path / "saved/trainer_state.json").read_text())
    assert state["global_step"] == 4
