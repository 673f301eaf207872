"""What a recipe needs on this machine before it can start: optional packages, and the models that it names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.folders import adapter_problem, base_model, model_problem, tokenizer_problem
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.packages import missing_packages, version_limit
from lf_longpo.plugin.check.producing_commands import command_for_folder

# Losses of stage dpo without a reference model, as in LLaMA-Factory's FinetuningArguments.
_NO_REFERENCE = ("orpo", "simpo")


def check_prerequisites(recipe: str | Path, settings: Mapping[str, Any], findings: Findings) -> None:
    """Reports optional packages that are not installed, and models, adapters and checkpoints that do not exist.

    Names of hub models are not checked. Neither LLaMA-Factory nor torch is imported.

    Args:
        recipe: the recipe's path; recipes next to it show which command makes a missing model.
        settings: of the recipe with its overrides, values of any kind.
        findings: gets the results.
    """
    for setting, message, falls_back in missing_packages(settings):
        report = findings.warn if falls_back else findings.error
        report(setting, message)
    if (package := version_limit(settings)) is not None:
        findings.warn(
            "infer_backend",
            f"LLaMA-Factory's check of versions does not accept {package}; start it with `DISABLE_VERSION_CHECK=1 "
            f"llamafactory-cli api {recipe}`",
        )
    for setting, problem in _model_problems(Path(recipe), settings):
        findings.error(setting, problem)


def _model_problems(recipe: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields settings that name models, each with what is wrong with it."""
    yield from _policy_problems(recipe, settings)
    stage, loss = settings.get("stage"), settings.get("pref_loss")
    pairs = []
    if stage in ("kto", "ppo") or (stage == "dpo" and loss not in _NO_REFERENCE):
        pairs.append(("ref_model", "ref_model_adapters"))
    if stage == "ppo" and settings.get("reward_model_type") == "full":
        pairs.append(("reward_model", "reward_model_adapters"))
    elif stage == "ppo" and settings.get("reward_model_type") != "api":
        yield from _adapter_problems(recipe, settings, "reward_model", "model_name_or_path")
    for model_setting, adapter_setting in pairs:
        name = _text(settings, model_setting)
        if name and (problem := model_problem(name, model_setting, adapter_setting, command_for_folder(name, recipe))):
            yield model_setting, problem
        yield from _adapter_problems(recipe, settings, adapter_setting, model_setting)
    checkpoint = _text(settings, "resume_from_checkpoint")
    if checkpoint and not Path(checkpoint).is_dir():
        yield (
            "resume_from_checkpoint",
            f"{checkpoint} is not a folder; set it to a checkpoint in output_dir, or remove it to use the newest "
            "checkpoint there",
        )


def _policy_problems(recipe: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name, setting, adapter_setting = _text(settings, "model_name_or_path"), "model_name_or_path", "adapter_name_or_path"
    adapters = _listed(settings.get(adapter_setting))
    if not name:
        base = next((base for adapter in adapters if (base := base_model(adapter))), "a model folder or a hub name")
        yield setting, f"is missing; set {setting}: {base}"
    elif is_embedded(name) and not Path(name).is_dir():
        yield (
            setting,
            f"{name} is an embedded model of lf-longpo, which LLaMA-Factory cannot load by name; run `bash "
            f"scripts/setup.sh` and set {setting}: models/{name}",
        )
    else:
        made_by = command_for_folder(name, recipe)
        scratch = settings.get("train_from_scratch") is True
        problem = model_problem(name, setting, adapter_setting, made_by, needs_weights=not scratch)
        if problem := problem or tokenizer_problem(name, setting, made_by):
            yield setting, problem
    yield from _adapter_problems(recipe, settings, adapter_setting, setting)


def _adapter_problems(
    recipe: Path, settings: Mapping[str, Any], setting: str, model_setting: str
) -> Iterator[tuple[str, str]]:
    for name in _listed(settings.get(setting)):
        made_by = command_for_folder(name, recipe)
        inside = f"{name}/{folder}" if (folder := _text(settings, "adapter_folder")) else name
        if problem := adapter_problem(inside, setting, model_setting, made_by):
            yield setting, problem


def _text(settings: Mapping[str, Any], setting: str) -> str:
    value = settings.get(setting)
    return value if isinstance(value, str) else ""


def _listed(value: Any) -> list[str]:
    """Names that LLaMA-Factory accepts as a list or as a text with commas."""
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(name).strip() for name in names]
