"""What a data set of pairs becomes under `longpo train`: held out by prompt, with rewards where a loss needs them."""

import json

import pytest
from conftest import write_jsonl

from lf_longpo.cli import main
from lf_longpo.errors import UserError
from lf_longpo.plugin.train.option_checks import check_options, check_packed
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.pair_data import reading_pairs
from lf_longpo.plugin.train.pair_losses import mean_gap
from lf_longpo.plugin.train.reference_logps import ReferenceLogps


@pytest.fixture
def read(tmp_path):
    """LLaMA-Factory's training and evaluation set for rows of pairs, as `longpo train` reads them."""

    def load(rows, options=None, **settings):
        from llamafactory.data import loader
        from llamafactory.data.template import get_template_and_fix_tokenizer

        from lf_longpo.models.tokenizers import load_tokenizer
        from lf_longpo.plugin.recipe import parse_recipe

        write_jsonl(tmp_path / "rows.jsonl", rows)
        columns = {column: column for column in ("prompt", "chosen", "rejected")}
        entry = {"file_name": "rows.jsonl", "ranking": True, "columns": columns}
        (tmp_path / "dataset_info.json").write_text(json.dumps({"pairs": entry}))
        run = parse_recipe(
            {
                "stage": "dpo", "do_train": True, "model_name_or_path": "x", "dataset": "pairs", "use_cpu": True,
                "dataset_dir": str(tmp_path), "template": "smollm2", "output_dir": str(tmp_path / "out"), **settings,
            }
        )  # fmt: skip
        tokenizer = load_tokenizer("smollm2-135m", "tokenizer", False)
        template = get_template_and_fix_tokenizer(tokenizer, run.data)
        found = {}

        def workflow():
            found.update(loader.get_dataset(template, run.model, run.data, run.training, "rm", tokenizer))

        if options is None:
            workflow()
        else:
            reading_pairs(options)(workflow)()
        return found

    return load


def pairs(prompts, each):
    return [
        {
            "prompt": f"Question {number}?",
            "chosen": f"Yes {turn}.",
            "rejected": f"No {turn}.",
            "chosen_reward": 1.0,
            "rejected_reward": turn / 10,
        }
        for turn in range(each)
        for number in range(prompts)
    ]


def prompts_of(dataset):
    starts = [row.index(next(label for label in row if label != -100)) for row in dataset["chosen_labels"]]
    return [tuple(ids[:start]) for ids, start in zip(dataset["chosen_input_ids"], starts, strict=True)]


@pytest.mark.parametrize("size", [0.25, 6])
def test_no_prompt_is_trained_on_and_held_out(read, size):
    found = read(pairs(8, 3), TrainOptions(), val_size=size)
    train, held_out = prompts_of(found["train_dataset"]), prompts_of(found["eval_dataset"])
    assert (len(train), len(held_out)) == (18, 6) and len(set(held_out)) == 2
    assert not set(train) & set(held_out)


@pytest.mark.parametrize("size", [0.25, 3])
def test_one_pair_for_each_prompt_is_held_out_as_in_llamafactory(read, size):
    stock, ours = (read(pairs(8, 1), options, val_size=size) for options in (None, TrainOptions()))
    for name in ("train_dataset", "eval_dataset"):
        assert stock[name].to_dict() == ours[name].to_dict()


def test_pairs_keep_their_rewards(read):
    rows = pairs(2, 2)
    rows.insert(
        1, {"prompt": "Dropped?", "chosen": None, "rejected": None, "chosen_reward": 9.0, "rejected_reward": 9.0}
    )
    found = read(rows, TrainOptions(pair_margin=1.0))["train_dataset"]
    assert found["rejected_reward"] == [0.0, 0.0, 0.1, 0.1] and found["chosen_reward"] == [1.0] * 4
    assert mean_gap(found, TrainOptions(pair_weight="gap")) == pytest.approx(0.95)
    assert "rejected_reward" not in read(rows, TrainOptions())["train_dataset"].column_names


WRONG = {
    "no column": ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "data set rows.jsonl has no column chosen_reward"),
    "no number": (
        [*pairs(1, 1), pairs(1, 1)[0] | {"rejected_reward": None}],
        "data set rows.jsonl, row 2: rejected_reward is None; set a number",
    ),
    "the wrong order": (
        [pairs(1, 1)[0] | {"rejected_reward": 2.0}],
        "row 1: chosen_reward 1.0 is lower than rejected_reward 2.0",
    ),
}


@pytest.mark.parametrize(("rows", "message"), WRONG.values(), ids=WRONG)
def test_rewards_that_are_missing_or_wrong_are_named(read, rows, message):
    with pytest.raises(UserError, match=message):
        read(rows, TrainOptions(pair_weight="gap"))


def test_tokenised_pairs_without_rewards_or_gaps_are_refused():
    from datasets import Dataset

    with pytest.raises(UserError, match="has no chosen_reward and no rejected_reward, which --pair-weight needs"):
        mean_gap(Dataset.from_dict({"chosen_labels": [[1]]}), TrainOptions(pair_weight="gap"))
    equal = Dataset.from_dict({"chosen_reward": [1.0], "rejected_reward": [1.0]})
    with pytest.raises(UserError, match="all pairs have equal rewards; remove --pref-loss"):
        mean_gap(equal, TrainOptions(pref_loss="listwise"))


GAP, MARGIN, LIST = TrainOptions(pair_weight="gap"), TrainOptions(pair_margin=1.0), TrainOptions(pref_loss="listwise")
UNFIT = {
    "another stage": (GAP, {"stage": "sft"}, "--pair-weight needs pairs; set stage: dpo, not sft"),
    "a loss without margin": (MARGIN, {"pref_loss": "orpo"}, "no meaning for pref_loss: orpo; set pref_loss to one of"),
    "a margin for another loss": (MARGIN, {"pref_bco_weight": 0.5}, "remove pref_bco_weight"),
    "a list and a loss": (LIST, {"pref_loss": "simpo"}, "replaces the recipe's loss; remove pref_loss: simpo"),
    "a list and a setting": (LIST, {"ld_alpha": 0.5}, "does not use ld_alpha; remove ld_alpha"),
    "a list and a weight": (
        TrainOptions(pair_weight="gap", pref_loss="listwise"),
        {},
        "remove --pair-weight and --pair-margin",
    ),
}


@pytest.mark.parametrize(("options", "settings", "message"), UNFIT.values(), ids=UNFIT)
def test_options_that_do_not_fit_the_recipe_are_refused(options, settings, message):
    with pytest.raises(UserError, match=message):
        check_options(options, {"stage": "dpo"} | settings)


def test_options_that_fit_are_taken():
    for options in (TrainOptions(), GAP, MARGIN, LIST, TrainOptions(max_row_tokens=4096)):
        check_options(options, {"stage": "dpo"})
    check_options(TrainOptions(), {"stage": "sft"})
    check_packed(TrainOptions(), "the model is new")
    assert TrainOptions.from_json(GAP.to_json()) == GAP


def test_plain_llamafactory_cannot_take_the_options(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text("stage: dpo\ntemplate: smollm2\n")
    assert main(["train", str(path), "--stock", "--pair-weight", "gap"]) == 2
    assert "--pair-weight needs the trainer of longpo train" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--pair-margin", "-1"), ("--max-row-tokens", "0")])
def test_a_value_that_is_no_amount_is_refused(capsys, option, value):
    with pytest.raises(SystemExit):
        main(["train", "recipe.yaml", f"{option}={value}"])
    assert "above 0" in capsys.readouterr().err


def test_references_of_pairs_that_an_earlier_release_stored_are_ignored(tmp_path):
    import torch

    ReferenceLogps(tmp_path, ["model"], 0)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text('{"id": "old", "chosen": -1.0, "rejected": -2.0}\n')
    references = ReferenceLogps(tmp_path, ["model"], 0)
    assert references.find(["old"], torch.device("cpu")) is None
    references.keep(["new"], torch.tensor([-3.0]))
    found = ReferenceLogps(tmp_path, ["model"], 0).find(["new", "new"], torch.device("cpu"))
    assert found is not None and found.tolist() == [-3.0, -3.0]
