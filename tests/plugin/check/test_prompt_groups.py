"""`longpo check` on several pairs of a prompt: it counts the rows that training will have."""

import json

import pytest
import yaml
from conftest import write_jsonl

from lf_longpo.plugin.check.examples import Lengths, Measured
from lf_longpo.plugin.check.prompt_groups import groups_of, pairs_per_group
from lf_longpo.plugin.check.recipe_check import PACKED, STOCK, check


def measured(examples):
    """Of pairs, each as the prompt's text and length and both responses' texts and lengths."""
    kept = [Lengths(length, tuple(sides.values())) for (_, length), sides in examples]
    texts = [(prompt, *sides) for (prompt, _), sides in examples]
    return Measured(kept, kept, [1] * len(kept), 0, [], [], [], {}, texts)


def test_pairs_share_a_row_and_their_responses():
    pairs = [(("p", 10), {"a": 3, "b": 4}), (("q", 10), {"a": 3, "b": 4}), (("p", 10), {"a": 3, "c": 5})]
    groups = groups_of([measured(pairs)])
    assert [group.lengths for group in groups] == [Lengths(10, (3, 4, 5)), Lengths(10, (3, 4))]
    assert [group.tokens for group in groups] == [22, 17] and pairs_per_group(groups) == 1.5


def test_a_prompt_that_is_cut_for_one_pair_only_is_another_prompt():
    pairs = [(("p", 10), {"a": 3, "b": 4}), (("p", 8), {"a": 3, "c": 6})]
    assert len(groups_of([measured(pairs)])) == 2


def test_a_long_row_is_divided():
    pairs = [(("p", 10), {f"a{number}": 5, f"b{number}": 5}) for number in range(4)]
    assert [len(group.pairs) for group in groups_of([measured(pairs)], 30)] == [2, 2]
    assert len(groups_of([measured(pairs)], 15)) == 4  # single pairs of 20 tokens


@pytest.fixture
def recipe(tmp_path, models):
    rows = [
        {"prompt": f"Where is lamp {lamp}?", "chosen": f"In tower {turn}.", "rejected": f"I do not know, {turn}."}
        for turn in range(4)
        for lamp in range(6)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = {column: column for column in rows[0]}
    entry = {"file_name": "rows.jsonl", "ranking": True, "columns": columns}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"lamps": entry}))
    settings = {
        "model_name_or_path": str(models("llama3", small_tokenizer=True)), "stage": "dpo", "do_train": True,
        "finetuning_type": "lora", "dataset_dir": str(tmp_path), "dataset": "lamps", "template": "smollm2",
        "cutoff_len": 512, "output_dir": str(tmp_path / "out"), "gradient_accumulation_steps": 8, "report_to": "none",
        "per_device_train_batch_size": 1, "num_train_epochs": 1.0,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "recipe.yaml"


def test_rows_steps_and_memory_are_those_of_groups(recipe):
    facts = check(recipe, gpus=1, gpu_memory=80).findings.facts
    rows = facts["rows of one prompt"]
    assert (rows["rows"], rows["pairs"]) == (6, 24)
    assert (rows["pairs of the largest row"], rows["responses of the largest row"]) == (4, 8)
    longest = facts["datasets"]["lamps"]["tokens"]["max"]
    assert longest < rows["tokens of the longest row"] < 4 * longest
    assert 1 < rows["times as fast as plain LLaMA-Factory, by the products"] < 8
    assert facts["steps"] == {"examples a step": 8, "steps an epoch": 3, "steps in all": 3}
    ways = facts["memory"]["ways"]
    grouped = ways[PACKED]["parts"]["activations"]
    # Two rows of a pair, against one row with the prompt and eight responses.
    assert grouped / ways[STOCK]["parts"]["activations"] == pytest.approx(
        rows["tokens of the longest row"] / (2 * -(-longest // 8) * 8), rel=0.01
    )
    divided = check(recipe, gpus=1, gpu_memory=80, max_row_tokens=longest + 40).findings
    assert divided.facts["rows of one prompt"]["rows"] > 6
    assert divided.facts["memory"]["ways"][PACKED]["parts"]["activations"] < grouped


def test_a_pair_that_is_longer_than_a_row_is_reported(recipe):
    findings = check(recipe, gpus=1, gpu_memory=80, max_row_tokens=20).findings
    (message,) = [message for where, message in findings.warnings if where == "--max-row-tokens"]
    assert "a single pair has" in message and "more than 20, and is not divided" in message
