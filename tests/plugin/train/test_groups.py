"""Several pairs of a prompt in one row: the same losses as plain LLaMA-Factory's on these pairs."""

import json
import math
import random
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import REPOSITORY, write_jsonl
from test_train import LOSSES as PAIR_LOSSES
from test_train import WORDS, other_model, stock_trainers
from test_train_processes import finish, log, start

from lf_longpo.plugin.train.groups import PairSize, split_by_tokens, step_size
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.packing import pack
from lf_longpo.plugin.train.pair_collator import PairCollator
from lf_longpo.plugin.train.pair_losses import listwise_losses


def ranked(responses):
    """Best with worst, second best with second worst."""
    return [(number, responses - 1 - number) for number in range(responses // 2)]


def every(responses):
    return [(better, worse) for better in range(responses) for worse in range(better + 1, responses)]


def rows_of(groups, seed=0):
    """Rows of pairs. `groups` has for each prompt its number of responses and a function that pairs them.

    The prompts take turns, so that no two pairs of a prompt are neighbours.
    """
    chance = random.Random(seed)

    def text(least, most):
        return " ".join(chance.choice(WORDS) for _ in range(chance.randint(least, most)))

    found = []
    for number, (responses, choose) in enumerate(groups):
        prompt, answers = text(20, 60), [text(3, 16) for _ in range(responses)]
        rewards = sorted((round(chance.random(), 3) for _ in answers), reverse=True)
        for turn, (better, worse) in enumerate(choose(responses)):
            row = {"prompt": prompt, "chosen": answers[better], "rejected": answers[worse]}
            found.append((turn, number, row | {"chosen_reward": rewards[better], "rejected_reward": rewards[worse]}))
    return [row for *_, row in sorted(found, key=lambda entry: entry[:2])]


@pytest.fixture
def recipe(tmp_path, models):
    """A recipe of a tiny model over some rows, all in one step, as a function of what to change in it."""

    def make(rows, **changes):
        write_jsonl(tmp_path / "rows.jsonl", rows)
        columns = {column: column for column in ("prompt", "chosen", "rejected")}
        info = {"pairs": {"file_name": "rows.jsonl", "ranking": True, "columns": columns}}
        (tmp_path / "dataset_info.json").write_text(json.dumps(info))
        return {
            "stage": "dpo",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset": "pairs",
            "template": "smollm2",
            "cutoff_len": 256,
            "model_name_or_path": str(models("llama3", small_tokenizer=True)),
            "dataset_dir": str(tmp_path),
            "output_dir": str(tmp_path / "out"),
            "report_to": "none",
            "logging_steps": 1,
            "save_strategy": "no",
            "max_steps": 1,
            "per_device_train_batch_size": len(rows),
            "learning_rate": 1.0e-3,
            "use_cpu": True,
            "max_grad_norm": 0.0,
        } | changes

    return make


class Run:
    """One run in this process.

    Args:
        settings: of the recipe.
        options: of `longpo train`; None: plain LLaMA-Factory trains.

    Attributes:
        folder: its own output folder.
        history: the log.
        gradients: of each step, by parameter.
        notes: the sentences for the user.
        dataset: the training set of the trainer.
    """

    def __init__(self, settings, options=None):
        from llamafactory.train.tuner import run_exp
        from transformers import TrainerCallback

        from lf_longpo.plugin.train.install import install

        self.gradients, self.notes = [], []
        self.folder = Path(tempfile.mkdtemp(dir=settings["dataset_dir"]), "out")
        run = self

        class Watch(TrainerCallback):
            def on_train_begin(self, args, state, control, train_dataloader=None, **_):
                run.dataset = train_dataloader.dataset

            def on_pre_optimizer_step(self, args, state, control, model=None, **_):
                run.gradients.append(
                    {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}
                )

        with stock_trainers():
            guard = [] if options is None else [install(options, self.notes.append)]
            run_exp(settings | {"output_dir": str(self.folder)}, callbacks=[Watch(), *guard])
        self.history = json.loads((self.folder / "trainer_state.json").read_text())["log_history"]


def same_gradients(expected, found, tolerance=1e-5):
    assert expected.keys() == found.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert largest > 1e-6
    for name, gradient in expected.items():
        assert (gradient - found[name]).abs().max() <= tolerance * largest, name


def same_run(settings, tolerance=1e-5, options=None):
    """Trains both ways: every logged figure and all gradients of the steps must agree."""
    stock, ours = Run(settings), Run(settings, options or TrainOptions())
    assert len(stock.history) == len(ours.history) and len(stock.gradients) == len(ours.gradients)
    for expected, found in zip(stock.history, ours.history, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            if not any(part in name for part in ("logits/", "accuracies", "runtime", "per_second", "flos")):
                scale = 100 if "rewards" in name else 1
                assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance * scale), name
    for expected, found in zip(stock.gradients, ours.gradients, strict=True):
        same_gradients(expected, found, tolerance)
    return ours


LOSSES = {name: changes for name, changes in PAIR_LOSSES.items() if name != "no sft part"} | {
    "pref_ftx": {"pref_ftx": 0.3},
    "full": {"finetuning_type": "full", "pref_ftx": 0.3},
    "another reference": {"ref_model": "OTHER"},
}
GROUPS = {
    "2 responses": [(2, every)] * 4,
    "4 responses, ranked": [(4, ranked)] * 3,
    "8 responses, ranked": [(8, ranked)] * 2,
    "8 responses, all pairs": [(8, every)],
    "groups of many sizes": [(2, every), (8, ranked), (4, every), (3, every)],
}


def changed(changes, tmp_path, models):
    if "ref_model" in changes:
        return changes | {"ref_model": str(other_model(models("llama3", small_tokenizer=True), tmp_path))}
    return changes


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_of_a_group_is_that_of_its_pairs(recipe, tmp_path, models, loss):
    settings = recipe(rows_of([(4, every), (4, every)]), **changed(LOSSES[loss], tmp_path, models))
    assert len(same_run(settings).dataset) == 2


@pytest.mark.slow
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_groups_of_any_size_are_the_same(recipe, groups, tuning):
    settings = recipe(rows_of(GROUPS[groups]), finetuning_type=tuning, pref_ftx=0.1, pref_beta=0.5)
    assert len(same_run(settings).dataset) == len(GROUPS[groups])


@pytest.mark.slow
def test_several_steps_with_stored_references_are_the_same(recipe):
    """The whole set in each of three steps; the references are computed once for each response."""
    rows = rows_of([(4, every), (3, every)])
    ours = same_run(recipe(rows, max_steps=3), tolerance=1e-4)
    (stored,) = (ours.folder / "reference_logps").glob("*.jsonl")
    assert len(ours.history) == 4 and len(stored.read_text().splitlines()) == 7


@pytest.mark.slow
def test_accumulated_groups_of_unequal_size_count_every_pair_the_same(recipe):
    """Two batches of one prompt, with 6 pairs and 1 pair, against one batch of plain LLaMA-Factory."""
    rows = rows_of([(4, every), (2, every)])
    stock = Run(recipe(rows))
    settings = recipe(rows, per_device_train_batch_size=1, gradient_accumulation_steps=7)
    ours = Run(settings, TrainOptions())
    for name in ("loss", "rewards/margins", "logps/chosen"):
        assert ours.history[0][name] == pytest.approx(stock.history[0][name], rel=1e-5, abs=1e-5), name
    same_gradients(stock.gradients[0], ours.gradients[0])
    assert ours.notes[-1] == "7 pairs of 2 prompts: rows of one prompt each; a step has 2 of them, with about 7 pairs"


@pytest.mark.slow
def test_an_evaluation_is_the_mean_over_pairs(recipe):
    rows = rows_of([(4, every)] * 3 + [(2, every)] * 3)
    changes = {"val_size": 10, "eval_strategy": "steps", "eval_steps": 1, "per_device_train_batch_size": 4}
    ours = Run(recipe(rows, per_device_eval_batch_size=1, **changes), TrainOptions())
    held_out = {row["prompt"] for row in rows}
    evaluated = next(entry for entry in ours.history if "eval_loss" in entry)
    alone = Run(recipe(rows, per_device_eval_batch_size=100, **changes), TrainOptions())
    expected = next(entry for entry in alone.history if "eval_loss" in entry)
    for name in ("eval_loss", "eval_rewards/margins", "eval_logps/chosen"):
        assert evaluated[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
    assert len(held_out) == 6 and len(ours.dataset) == 3


@pytest.mark.slow
def test_rows_of_at_most_some_tokens_have_the_same_loss(recipe):
    settings = recipe(rows_of([(6, ranked), (6, every)]))
    whole = Run(settings, TrainOptions())
    limit = min(lengths(whole.dataset)) - 1
    divided = Run(settings, TrainOptions(max_row_tokens=limit))
    assert len(whole.dataset) == 2 and len(divided.dataset) >= 4
    assert max(lengths(divided.dataset)) <= limit
    assert f"18 pairs of 2 prompts in {len(divided.dataset)} rows: " in divided.notes[-1]
    assert divided.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-5)
    same_gradients(whole.gradients[0], divided.gradients[0])


def lengths(groups):
    """Tokens of the row of each group."""
    return [PairCollator()([groups[number]])["input_ids"].shape[1] for number in range(len(groups))]


def plain_logps(model, pairs):
    """The log-probability of both responses of each pair, (P, 2), and their numbers of tokens, by one pass for each."""
    rows, lengths = [], []
    for pair in pairs:
        for side in ("chosen", "rejected"):
            ids, labels = (torch.tensor(pair[f"{side}_{part}"]) for part in ("input_ids", "labels"))
            logps = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            counts = labels[1:] != -100
            rows.append(logps[counts].gather(1, labels[1:][counts][:, None]).sum())
            lengths.append(counts.sum())
    return torch.stack(rows).view(-1, 2), torch.stack(lengths).view(-1, 2)


def weighted(beta, logps, reference, lengths, rewards):
    gaps = rewards[:, 0] - rewards[:, 1]
    ratios = (logps - reference)[:, 0] - (logps - reference)[:, 1]
    return (-F.logsigmoid(beta * ratios) * gaps / gaps.mean()).mean()


def offset(beta, logps, reference, lengths, rewards):
    gaps = rewards[:, 0] - rewards[:, 1]
    ratios = (logps - reference)[:, 0] - (logps - reference)[:, 1]
    return -F.logsigmoid(beta * ratios - 2.0 * gaps).mean()


def simpo(beta, logps, reference, lengths, rewards):
    gaps = rewards[:, 0] - rewards[:, 1]
    means = logps / lengths
    return -F.logsigmoid(beta * (means[:, 0] - means[:, 1]) - 0.5 - 2.0 * gaps).mean()


def orpo(beta, logps, reference, lengths, rewards):
    gaps = rewards[:, 0] - rewards[:, 1]
    means = logps / lengths
    odds = means - torch.log1p(-means.exp())
    return (-means[:, 0] - beta * F.logsigmoid(odds[:, 0] - odds[:, 1]) * gaps / gaps.mean()).mean()


REWARDED = {
    "weight": (TrainOptions(pair_weight="gap"), {}, weighted),
    "margin": (TrainOptions(pair_margin=2.0), {}, offset),
    "SimPO's margin": (TrainOptions(pair_margin=2.0), {"pref_loss": "simpo", "simpo_gamma": 0.5}, simpo),
    "ORPO, weighted": (TrainOptions(pair_weight="gap"), {"pref_loss": "orpo"}, orpo),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REWARDED)
def test_losses_with_rewards_are_those_of_their_formulas(recipe, tmp_path, models, name):
    options, changes, formula = REWARDED[name]
    rows = rows_of([(4, every), (3, every), (2, every)])
    other = str(other_model(models("llama3", small_tokenizer=True), tmp_path))
    reference = {} if "pref_loss" in changes else {"ref_model": other}
    settings = recipe(rows, finetuning_type="full", pref_beta=0.5, **changes, **reference)
    compare_with(settings, options, lambda *values: formula(0.5, *values), other)


def compare_with(settings, options, formula, reference):
    """One step of a full tuning against a loss computed from one forward pass for each response."""
    from transformers import AutoModelForCausalLM

    run = Run(settings, options)
    pairs = [run.dataset.pairs[number] for number in range(len(run.dataset.pairs))]
    model, other = (AutoModelForCausalLM.from_pretrained(path) for path in (settings["model_name_or_path"], reference))
    with torch.no_grad():
        expected_reference, _ = plain_logps(other, pairs)
    logps, lengths = plain_logps(model, pairs)
    rewards = torch.tensor([[pair["chosen_reward"], pair["rejected_reward"]] for pair in pairs])
    loss = formula(logps, expected_reference, lengths, rewards)
    loss.backward()
    assert run.history[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)  # logged with four digits
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    same_gradients(expected, run.gradients[0], 2e-5)


def plackett_luce(scores, rewards):
    """Of one prompt, response by response."""
    total = 0.0
    for score, reward in zip(scores, rewards, strict=True):
        below = [other for other, lower in zip(scores, rewards, strict=True) if lower < reward]
        total = total - (score - torch.logsumexp(torch.stack([score, *below]), 0))
    return total


@pytest.mark.slow
def test_the_listwise_loss_is_that_of_its_formula(recipe, tmp_path, models):
    rows = rows_of([(6, ranked), (3, every), (2, every)])
    other = str(other_model(models("llama3", small_tokenizer=True), tmp_path))

    def formula(logps, reference, lengths, rewards):
        prompts = {}
        for row, pair in zip(rows, zip((logps - reference).mul(0.5), rewards, strict=True), strict=True):
            for side, text in enumerate((row["chosen"], row["rejected"])):
                prompts.setdefault(row["prompt"], {})[text] = (pair[0][side], pair[1][side].item())
        losses = [plackett_luce(*zip(*found.values(), strict=True)) for found in prompts.values()]
        return torch.stack(losses).mean()

    settings = recipe(rows, finetuning_type="full", pref_beta=0.5, ref_model=other)
    compare_with(settings, TrainOptions(pref_loss="listwise"), formula, other)


def test_responses_of_equal_reward_are_not_compared():
    scores = torch.tensor([0.3, -0.2, 1.1, 0.4, 2.0], dtype=torch.float64)
    rewards = torch.tensor([1.0, 0.5, 0.5, 0.0, 7.0])
    prompts = torch.tensor([0, 0, 0, 0, 1])
    found = listwise_losses(scores, rewards, prompts, 2)
    a, b, c, d = scores[:4]
    expected = -(a - torch.stack([a, b, c, d]).logsumexp(0)) - F.logsigmoid(b - d) - F.logsigmoid(c - d)
    torch.testing.assert_close(found, torch.stack([expected, torch.zeros_like(expected)]))


def test_the_listwise_loss_of_two_responses_is_that_of_a_pair():
    scores = torch.tensor([0.3, -0.2])
    found = listwise_losses(scores, torch.tensor([0.1, 0.9]), torch.tensor([0, 0]), 1)
    torch.testing.assert_close(found, -F.logsigmoid(scores[1] - scores[0])[None])


def test_a_row_has_each_response_once():
    ignored = [-100] * 2

    def pair(prompt, chosen, rejected):
        sides = {"chosen": chosen, "rejected": rejected}
        return {f"{side}_input_ids": prompt + ids for side, ids in sides.items()} | {
            f"{side}_labels": ignored + ids for side, ids in sides.items()
        }

    a, b, c = [7], [8, 9], [10, 11, 12]
    groups = [
        {"pairs": [pair([1, 2], a, c), pair([1, 2], b, c), pair([1, 2], a, b)], "pairs_per_group": 2.0},
        {"pairs": [pair([3, 4], b, a)], "pairs_per_group": 2.0},
    ]
    batch = PairCollator()(groups)
    assert batch["input_ids"].tolist() == [[1, 2, 7, 10, 11, 12, 8, 9, 3, 4, 8, 9, 7]]
    assert batch["segments"] == [[2, 1, 3, 2], [2, 2, 1]]
    assert batch["response_lengths"].tolist() == [1, 2, 3, 1, 2]  # first, second and third responses of both prompts
    assert batch["sides"].tolist() == [0, 4, 0, 1, 2, 2, 4, 3]
    assert batch["prompts"].tolist() == [0, 0, 0, 1] and len(set(batch["digests"])) == 5


def test_one_pair_for_each_prompt_is_packed_as_a_batch_of_pairs():
    sides = [([1, 2, 7], [1, 2, 8, 9]), ([3, 4, 8], [3, 4, 5])]
    features = [
        {
            "chosen_input_ids": chosen,
            "chosen_labels": [-100, -100, *chosen[2:]],
            "rejected_input_ids": rejected,
            "rejected_labels": [-100, -100, *rejected[2:]],
        }
        for chosen, rejected in sides
    ]
    branches = [
        [(feature[f"{side}_input_ids"], feature[f"{side}_labels"]) for side in ("chosen", "rejected")]
        for feature in features
    ]
    expected = pack(branches)
    batch = PairCollator()([{"pairs": [feature], "pairs_per_group": 1.0} for feature in features])
    for name, value in expected.items():
        assert (batch[name] == value).all() if isinstance(value, torch.Tensor) else batch[name] == value
    assert batch["sides"].tolist() == [0, 1, 2, 3]


STEPS = {
    "one pair each": ((2, 4, 1.0), (2, 4)),
    "a group is the batch": ((4, 2, 4.0), (1, 2)),
    "groups take steps from the accumulation": ((1, 8, 4.0), (1, 2)),
    "more pairs than the recipe's": ((1, 1, 4.0), (1, 1)),
    "half a group": ((2, 4, 4.0), (1, 2)),
    "unequal groups": ((8, 1, 2.5), (3, 1)),
}


@pytest.mark.parametrize(("given", "expected"), STEPS.values(), ids=STEPS)
def test_a_step_has_about_the_pairs_of_the_recipe(given, expected):
    assert step_size(*given) == expected


def test_a_long_row_is_divided_between_pairs():
    sizes = [PairSize("p", 10, responses) for responses in ({"a": 5, "b": 5}, {"a": 5, "c": 5}, {"d": 9, "e": 9})]
    assert split_by_tokens([4, 5, 6], sizes, None) == [[4, 5, 6]]
    assert split_by_tokens([4, 5, 6], sizes, 25) == [[4, 5], [6]]  # a is there once; the last one is too long alone
    assert split_by_tokens([4, 5, 6], sizes, 24) == [[4], [5], [6]]


PROCESSES = {"DDP": None, "ZeRO-2": "ds_z2.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_two_processes_with_unequal_groups_are_the_same_as_one(recipe, tmp_path, name):
    """One process accumulates what two compute at the same time. A step has groups of 6, 3, 2 and 1 pairs."""
    rows = rows_of([(4, every), (3, every), (4, ranked), (2, every)] * 2)
    settings = recipe(rows, per_device_train_batch_size=3, max_steps=3, pref_ftx=0.1, max_grad_norm=1.0)
    one = Run(settings | {"gradient_accumulation_steps": 2}, TrainOptions()).history
    del settings["use_cpu"]
    deepspeed = {"deepspeed": str(REPOSITORY / "yaml/deepspeed" / PROCESSES[name])} if PROCESSES[name] else {}
    finish(start(settings | deepspeed, tmp_path / "two", processes=2))
    two = log(tmp_path / "two")
    assert len(one) == len(two) == 4
    for before, after in zip(one[:-1], two[:-1], strict=True):
        for figure in ("loss", "grad_norm", "rewards/margins", "logps/chosen"):
            scale = 100 if "rewards" in figure else 1
            assert after[figure] == pytest.approx(before[figure], rel=1e-4, abs=1e-5 * scale), (figure, before, after)


@pytest.mark.slow
def test_options_of_the_command_line_reach_the_trainer(recipe, tmp_path):
    from lf_longpo.cli import main

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(rows_of([(4, ranked)] * 2))))
    losses = []
    for number, options in enumerate([[], ["--pair-weight", "gap", "--pair-margin", "0.5"]]):
        with stock_trainers():
            assert main(["train", str(path), f"output_dir={tmp_path / str(number) / 'out'}", *options]) == 0
        losses.append(next(entry["loss"] for entry in log(tmp_path / str(number)) if "loss" in entry))
    assert losses[0] == pytest.approx(math.log(2), rel=1e-4) and losses[1] > losses[0]
