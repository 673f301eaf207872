"""Reward models in this process: tiny ones with random weights, made here."""

import asyncio
import json

import pytest
import torch
from conftest import write_jsonl
from tiny_models import tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lf_longpo.cli import main
from lf_longpo.config import JudgeModelConfig, SamplingConfig
from lf_longpo.errors import UserError
from lf_longpo.models.chat import ChatRequest
from lf_longpo.models.reward_model import RewardModel


def reward_model(folder, outputs=1, pad=True):
    """A random reward model with Qwen2's architecture and a small tokenizer with a chat template."""
    chat = tiny_model("qwen2", folder / "chat", small_tokenizer=True)
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    config = AutoConfig.from_pretrained(chat, num_labels=outputs)
    config.pad_token_id = tokenizer.pad_token_id if pad else None
    torch.manual_seed(1)
    made = folder / f"reward{outputs}{pad}"
    AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def settings(folder, **changes):
    return JudgeModelConfig(backend="reward_model", model=str(folder), device="cpu", dtype="float32", **changes)


async def scores_of(config, pairs):
    model = RewardModel(config)
    try:
        assert await model.start() == 2048
        requests = [ChatRequest(prompt, SamplingConfig(), 0, reply_start=reply) for prompt, reply in pairs]
        completions = await asyncio.gather(*map(model.complete, requests))
        return [(float(completion.text), completion.prompt_tokens) for completion in completions]
    finally:
        await model.close()


@pytest.mark.parametrize("pad", [True, False])
def test_a_batch_gives_the_scores_of_single_rows(tmp_path, pad):
    """The expected scores are those of transformers, one row at a time, as model cards show it."""
    folder = reward_model(tmp_path, pad=pad)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    pairs = [("Why?", "because" * n) for n in (1, 3, 9, 27)]
    expected = []
    for prompt, reply in pairs:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected.append((pytest.approx(model(input_ids=ids).logits.item(), abs=2e-5), ids.shape[1]))
    assert asyncio.run(scores_of(settings(folder, max_concurrency=3), pairs)) == expected
    assert len({score for score, _ in asyncio.run(scores_of(settings(folder), pairs))}) == 4


def test_other_models_are_refused(tmp_path):
    two = reward_model(tmp_path, outputs=2)
    with pytest.raises(UserError, match=r"has 2 outputs, not one; set judge.model to a model for sequence"):
        asyncio.run(scores_of(settings(two), []))
    with pytest.raises(UserError, match=r"is no reward model: it has no weights score.weight; set judge.model"):
        asyncio.run(scores_of(settings(tmp_path / "chat"), []))


def test_evaluate_judge_with_a_reward_model(tmp_path, capsys):
    folder = reward_model(tmp_path)
    rows = [
        {"context": "Rain fell.", "query": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n} more"}
        for n in range(4)
    ]
    path, out = write_jsonl(tmp_path / "pairs.jsonl", rows), tmp_path / "eval"
    judge = f"judge={{backend: reward_model, model: {folder}, device: cpu, max_concurrency: 4}}"
    (tmp_path / "c.yaml").write_text(f"input: {path}\noutput_dir: {out}\njudge: {{model: m}}\n")
    command = ["evaluate", "judge", str(tmp_path / "c.yaml"), judge]
    assert main([*command, "--estimate"]) == 0
    assert main(command) == 0
    results = json.loads((out / "results.json").read_text())
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    totals = [[score["total"] for score in row["details"][0]["scores"]] for row in rows]
    assert results["agreement"] == sum(chosen > rejected for chosen, rejected in totals) / 4
    assert results["calls"]["judge"]["calls"] == 8 and results["per_decision"]["calls"] == 2.0
    assert results["metrics"] == ["agreement", "tie", "prefers_longer", "wrongly_longer"]
    (out / "predictions.jsonl").unlink()
    assert main(command) == 0  # from the call cache
    assert json.loads((out / "results.json").read_text())["calls"] == results["calls"]
