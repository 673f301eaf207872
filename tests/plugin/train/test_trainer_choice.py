"""Which trainer a recipe gets: `longpo check` and `longpo train` decide alike."""

import pytest
import yaml
from test_train import recipe, stock_trainers  # noqa: F401  recipe is a fixture

from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.recipe_check import PACKED, check
from lf_longpo.plugin.check.settings_check import check_values
from lf_longpo.plugin.train.options import TrainOptions

EVALUATED = {"val_size": 4, "eval_strategy": "steps", "eval_steps": 2}
SFT = {"stage": "sft", "pref_ftx": None}
CHOICES = {
    "DPO": ({}, None),
    "the accuracy that DPO does not compute": ({"compute_accuracy": True, **EVALUATED}, None),
    "label smoothing that DPO does not read": ({"label_smoothing_factor": 0.1}, None),
    "noise": ({"neftune_noise_alpha": 5.0}, "the noise of neftune_noise_alpha depends on the length of a row"),
    "eager attention": ({"flash_attn": "disabled"}, "attention is eager"),
    "padding in the loss": ({"ignore_pad_token_for_loss": False}, "ignore_pad_token_for_loss"),
    "SFT": (SFT, None),
    "the accuracy that SFT computes": ({**SFT, "compute_accuracy": True}, "compute_accuracy needs every logit"),
    "another loss": ({**SFT, "use_dft_loss": True}, "the loss is not cross-entropy"),
    "packing": ({**SFT, "packing": True}, "LLaMA-Factory packs the examples"),
}


class Stopped(Exception):
    """Ends a run where its trainer would be made."""


@pytest.mark.parametrize(("changes", "reason"), CHOICES.values(), ids=CHOICES)
def test_the_check_and_the_run_choose_for_the_same_reason(recipe, tmp_path, changes, reason):  # noqa: F811
    settings = recipe("llama3", output_dir=str(tmp_path / "out"), **changes)
    settings = {key: value for key, value in settings.items() if value is not None}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    facts = check(tmp_path / "recipe.yaml").findings.facts
    found = facts["longpo train"]["reason"]
    assert (found is None) == (reason is None) and (reason or "") in (found or "")
    assert (PACKED in facts["memory"]["ways"]) == (reason is None)
    assert reason_in_training(settings) == found


def reason_in_training(settings):
    from llamafactory.train.tuner import run_exp

    from lf_longpo.plugin.train import install

    reasons = []
    real = install.reason_for_stock

    def stop(*arguments, **others):
        reasons.append(real(*arguments, **others))
        raise Stopped

    with stock_trainers() as patch:
        patch.setattr(install, "reason_for_stock", stop)
        install.install(TrainOptions())
        with pytest.raises(Stopped):
            run_exp(dict(settings))
    return reasons[0]


VALUES = {
    "nested settings for a choice": ({"quantization_method": {"bnb": 4}}, "must be one value on the same line"),
    "nested settings for a text": ({"template": {"name": "llama3"}}, "not nested settings (name)"),
    "nested settings for a number": ({"learning_rate": {"max": 1e-5}}, "not nested settings (max)"),
    "a choice": ({"quantization_method": "bmb"}, "must be one of bnb, gptq,"),
    "an attention kernel": ({"flash_attn": "fa9"}, "must be one of auto, disabled, sdpa, fa2, fa3, not 'fa9'"),
    "an optimizer": ({"optim": "adamw_torhc"}, "did you mean adamw_torch"),
}


@pytest.mark.parametrize(("settings", "message"), VALUES.values(), ids=VALUES)
def test_a_value_of_the_wrong_kind_is_found(settings, message):
    findings = Findings()
    check_values(settings, findings)
    ((where, found),) = findings.errors
    assert where in settings and message in found


def test_values_that_llamafactory_accepts_are_no_errors():
    findings = Findings()
    check_values(
        {
            "quantization_method": "bnb", "flash_attn": "fa2", "deepspeed": {"zero_optimization": {"stage": 2}},
            "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr": 0.0}, "eval_strategy": "steps",
            "dataset": ["a", "b"], "fsdp": "full_shard", "fsdp_config": {"x": 1},
            "rope_scaling": "yarn", "optim": "adamw_torch", "report_to": "none", "lora_target": "all",
        },
        findings,
    )  # fmt: skip
    assert findings.errors == []
