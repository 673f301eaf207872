"""A recipe's keys and values: those that LLaMA-Factory would refuse, and those that it would accept and ignore."""

import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from lf_longpo.errors import UserError
from lf_longpo.plugin.check.findings import Findings, nearest
from lf_longpo.plugin.compat import train_argument_classes
from lf_longpo.plugin.recipe import Arguments


class _Use(NamedTuple):
    """Keys that LLaMA-Factory reads only in some runs.

    Attributes:
        keys: a regular expression for the keys.
        used: whether a run reads them.
        only: the runs that read them, in words.
    """

    keys: str
    used: Callable[[Arguments], bool]
    only: str


def _evaluates(run: Arguments) -> bool:
    return bool(run.training.do_eval or run.training.eval_strategy != "no" or run.training.do_predict)


_USES = [
    _Use("pref_(beta|ftx)", lambda run: run.finetuning.stage in ("dpo", "kto"), "in the stages dpo and kto"),
    _Use("pref_(loss|bco_weight)|dpo_label_smoothing|ld_alpha", lambda run: run.finetuning.stage == "dpo", "by dpo"),
    _Use("simpo_gamma", lambda run: run.finetuning.pref_loss == "simpo", "by pref_loss: simpo"),
    _Use(
        "ref_model.*",
        lambda run: run.finetuning.use_ref_model or run.finetuning.stage in ("kto", "ppo"),
        "if the loss has a reference model (dpo with sigmoid, hinge, ipo or kto_pair; kto; ppo)",
    ),
    _Use(
        "compute_accuracy|use_(dft|eaft|asft)_loss|(eaft|asft)_alpha|use_hyper_parallel",
        lambda run: run.finetuning.stage == "sft",
        "in the stage sft",
    ),
    _Use(
        "label_smoothing_factor",
        lambda run: run.finetuning.stage in ("pt", "sft"),
        "in the stages pt and sft (dpo reads dpo_label_smoothing)",
    ),
    _Use("kto_.*", lambda run: run.finetuning.stage == "kto", "in the stage kto"),
    _Use("ppo_.*|reward_model.*", lambda run: run.finetuning.stage == "ppo", "in the stage ppo"),
    _Use(
        "lora_.*|loraplus_.*|create_new_adapter|adapter_name_or_path",
        lambda run: run.finetuning.finetuning_type == "lora",
        "by finetuning_type: lora",
    ),
    _Use(
        "additional_target",
        lambda run: run.finetuning.finetuning_type in ("lora", "oft"),
        "by finetuning_type: lora and oft",
    ),
    _Use("freeze_(trainable|extra).*", lambda run: run.finetuning.finetuning_type == "freeze", "by type freeze"),
    _Use("oft_.*|module_dropout", lambda run: run.finetuning.finetuning_type == "oft", "by finetuning_type: oft"),
    _Use("galore_.*", lambda run: run.finetuning.use_galore, "with use_galore: true"),
    _Use("apollo_.*", lambda run: run.finetuning.use_apollo, "with use_apollo: true"),
    _Use("badam_.*", lambda run: run.finetuning.use_badam, "with use_badam: true"),
    _Use("swanlab_.*", lambda run: run.finetuning.use_swanlab, "with use_swanlab: true"),
    _Use(
        "quantization_(type|device_map)|double_quantization",
        lambda run: run.model.quantization_bit is not None,
        "with quantization_bit",
    ),
    _Use("eval_steps|eval_delay", lambda run: run.training.eval_strategy != "no", "with eval_strategy: steps"),
    _Use("per_device_eval_batch_size|eval_accumulation_steps", _evaluates, "with eval_strategy: steps or do_eval"),
    _Use(
        "val_size|eval_dataset|eval_on_each_dataset",
        _evaluates,
        "with eval_strategy: steps or do_eval (val_size still takes its share of the training data)",
    ),
    _Use("save_steps", lambda run: run.training.save_strategy == "steps", "with save_strategy: steps"),
    _Use("logging_steps", lambda run: run.training.logging_strategy == "steps", "with logging_strategy: steps"),
    _Use("num_train_epochs", lambda run: run.training.max_steps <= 0, "without max_steps"),
    _Use("buffer_size", lambda run: run.data.streaming, "with streaming: true"),
    _Use("interleave_probs", lambda run: run.data.mix_strategy != "concat", "with mix_strategy: interleave_..."),
    _Use("temperature|top_[pk]|max_new_tokens|num_beams|do_sample|repetition_penalty|length_penalty",
         lambda run: run.training.predict_with_generate, "with predict_with_generate: true"),
]  # fmt: skip


def check_values(settings: Mapping[str, Any], findings: Findings) -> None:
    """Reports unknown keys, each with the nearest known one, and values of the wrong type.

    LLaMA-Factory's parser accepts values of any type: a misspelt choice fails hours later, and the text "false" counts
    as true.

    Raises:
        UserError: LLaMA-Factory cannot be imported, for example with an unsupported release of transformers.
    """
    try:
        groups = train_argument_classes()
    except ImportError as error:  # LLaMA-Factory's check of versions; it names the command
        raise UserError(f"LLaMA-Factory cannot be imported: {' '.join(str(error).split())}") from None

    kinds: dict[str, Any] = {}
    for group in groups:
        hints = get_type_hints(group)
        kinds |= {field.name: hints[field.name] for field in fields(group) if field.init}
    for key, value in settings.items():
        if key not in kinds:
            findings.error(key, f"LLaMA-Factory has no such setting{nearest(key, kinds) or '; remove it'}")
        elif value is not None and (wrong := _wrong(value, kinds[key])):
            findings.error(key, wrong)


def _wrong(value: Any, kind: Any) -> str:
    """What is wrong with a value for a setting of this type; empty if nothing is."""
    choices = _plain(kind)
    origins = {get_origin(option) or option for option in choices}
    if isinstance(value, dict) and dict not in origins:
        return f"must be one value on the same line, not nested settings ({', '.join(map(str, value))})"
    if names := _names(choices):
        near = nearest(str(value), names)
        return "" if value in names else f"must be one of {', '.join(names)}, not {value!r}{near}"
    if not origins <= {bool, int, float}:
        return ""
    if isinstance(value, bool):
        fits = bool in choices
    else:
        number = isinstance(value, (int, float))
        fits = number and (float in choices or (int in choices and value == int(value)))
    if fits:
        return ""
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}
    return f"must be {' or '.join(wanted[choice] for choice in choices)}, not {value!r}" + (
        " (a text; remove the quotes)" if isinstance(value, str) else ""
    )


def _names(choices: Sequence[Any]) -> list[str]:
    """The values that a setting may have; empty if they are not an enumeration."""
    names: list[str] = []
    for option in choices:
        if get_origin(option) is Literal:
            names += get_args(option)
        elif isinstance(option, type) and issubclass(option, Enum):
            names += [member.value for member in option]
        elif not (option is str and any(isinstance(choice, type) and issubclass(choice, Enum) for choice in choices)):
            return []
    return names


def _plain(kind: Any) -> list[Any]:
    """The types that a type allows, without None."""
    if get_origin(kind) in (Union, types.UnionType):
        return [plain for option in get_args(kind) if option is not type(None) for plain in _plain(option)]
    return [kind]


def check_ignored(settings: Mapping[str, Any], run: Arguments, findings: Findings) -> None:
    """Warns of settings that this run does not read."""
    for key in settings:
        for use in _USES:
            if settings[key] is not None and re.fullmatch(use.keys, key) and not use.used(run):
                findings.warn(key, f"is ignored; it is only read {use.only}; remove it")
                break
