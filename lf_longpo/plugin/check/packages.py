"""The optional packages that LLaMA-Factory 0.9.5 and transformers need for a recipe's settings.

LLaMA-Factory checks them in hparams/parser.py (`_check_extra_dependencies`), model/model_utils/ (quantization,
attention, longlora), train/ (tuner, ppo/trainer, fp8_utils) and extras/misc.py (hubs); transformers checks them in
trainer_optimizer.py and integrations/integration_utils.py. Most of these checks run after the model is loaded.
"""

import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lf_longpo.models.folders import is_path, quantization

# Packages of our extras, which have the right versions.
_EXTRAS = {"liger-kernel": "liger", "deepspeed": "deepspeed", "vllm": "vllm", "ray": "ray"}
# Packages that are built against the installed torch.
_BUILT = ("flash-attn", "autoawq")
_ELSEWHERE = {
    "apex": "install it from https://github.com/NVIDIA/apex",
    "torchdistx": "install it from https://github.com/pytorch/torchdistx",
    "transformers": "install it in an environment without lf-longpo",
    "trl": "install it in an environment without lf-longpo",
}

# Settings that need packages where they are true.
_SWITCHES = {
    "enable_liger_kernel": ["liger-kernel"],
    "use_liger_kernel": ["liger-kernel"],
    "use_unsloth": ["unsloth"],
    "use_kt": ["kt-kernel", "transformers-kt", "accelerate-kt"],
    "use_galore": ["galore_torch"],
    "use_apollo": ["apollo_torch"],
    "use_badam": ["badam>=1.2.1"],
    "use_adam_mini": ["adam-mini"],
    "use_swanlab": ["swanlab"],
    "use_hyper_parallel": ["hyper_parallel"],
    "plot_loss": ["matplotlib"],
    "predict_with_generate": ["jieba", "nltk", "rouge_chinese"],
    "shift_attn": ["transformers>=4.45.0,<4.48.0"],
}
# Settings that need packages where they are not null.
_PRESENT = {
    "deepspeed": ["deepspeed"],
    "mixture_of_depths": ["mixture-of-depth>=1.1.6"],
    "export_quantization_bit": ["optimum>=1.24.0", "gptqmodel>=2.0.0"],
}
_QUANTIZED = ("quantization_bit", "ref_model_quantization_bit", "reward_model_quantization_bit")
_QUANTIZERS = {"bnb": ["bitsandbytes>=0.39.0"], "hqq": ["hqq"], "eetq": ["eetq"]}
# Packages for quantized models, by the quant_method of their files.
_QUANTIZED_MODELS = {
    "gptq": ["gptqmodel>=2.0.0"],
    "awq": ["autoawq"],
    "aqlm": ["aqlm>=1.1.0"],
    "bitsandbytes": ["bitsandbytes"],
    "hqq": ["hqq"],
    "eetq": ["eetq"],
}
_BACKENDS = {"vllm": ["vllm"], "sglang": ["sglang>=0.4.5"]}
# The releases of vLLM that LLaMA-Factory's parser accepts unless DISABLE_VERSION_CHECK=1.
_VLLM = ">=0.4.3,<=0.11.0"
_TRACKERS = {
    "azure_ml": ["azureml-core"],
    "clearml": ["clearml"],
    "codecarbon": ["codecarbon"],
    "comet_ml": ["comet-ml"],
    "dagshub": ["dagshub", "mlflow"],
    "dvclive": ["dvclive"],
    "flyte": ["flytekit"],
    "mlflow": ["mlflow"],
    "neptune": ["neptune"],
    "swanlab": ["swanlab"],
    "tensorboard": ["tensorboard"],
    "trackio": ["trackio"],
    "wandb": ["wandb"],
}
_BITSANDBYTES = ("ademamix_8bit", "lion_8bit", "lion_32bit", "ademamix", "adamw_8bit", "adamw_bnb_8bit")
_OPTIMIZERS = {
    **{name: ["bitsandbytes"] for name in _BITSANDBYTES},
    "adamw_apex_fused": ["apex"],
    "adamw_anyprecision": ["torchdistx"],
    "adamw_torch_4bit": ["torchao>=0.4.0"],
    "adamw_torch_8bit": ["torchao>=0.4.0"],
    "lomo": ["lomo-optim"],
    "adalomo": ["lomo-optim"],
    "grokadamw": ["grokadamw"],
    "stable_adamw": ["torch-optimi"],
}
_OPTIMIZER_FAMILIES = {
    "paged_": ["bitsandbytes"],
    "rmsprop_bnb": ["bitsandbytes"],
    "galore_": ["galore_torch"],
    "apollo_": ["apollo_torch"],
    "schedule_free_": ["schedulefree"],
}
_VARIABLES = {
    "USE_RAY": ["ray"],
    "USE_MCA": ["mcore_adapter"],
    "USE_MODELSCOPE_HUB": ["modelscope>=1.14.0"],
    "USE_OPENMIND_HUB": ["openmind>=0.8.0"],
}


class _Need(NamedTuple):
    """A setting that needs packages.

    Attributes:
        setting: its name.
        packages: requirements; all of them are needed.
        instead: what to do if you do not want them.
        without: how the run differs without them; empty if it fails.
    """

    setting: str
    packages: list[str]
    instead: str
    without: str = ""


class MissingPackage(NamedTuple):
    """A setting with packages that are not installed, or not in the required version.

    Attributes:
        setting: of the recipe, or an environment variable.
        message: what is missing, the command that installs it, and what to set instead.
        falls_back: whether the run works without the package in another way.
    """

    setting: str
    message: str
    falls_back: bool


def missing_packages(settings: Mapping[str, Any]) -> list[MissingPackage]:
    """The optional packages that a recipe and environment variables need and that are not installed here.

    Imports neither LLaMA-Factory nor these packages.

    Args:
        settings: of the recipe, values of any kind.
    """
    missing = []
    for need in _needs(settings):
        faults = {package: fault for package in need.packages if (fault := _fault(package))}
        if faults:
            what = " and ".join(faults.values()) + need.without
            fix = f"{_install(list(faults))}, or {need.instead}"
            missing.append(MissingPackage(need.setting, f"{what}; {fix}", bool(need.without)))
    return missing


def version_limit(settings: Mapping[str, Any]) -> str | None:
    """The vLLM for which a recipe starts only with DISABLE_VERSION_CHECK=1: the installed one, or that of our extra.

    LLaMA-Factory 0.9.5 accepts vLLM up to 0.11.0 only, which needs an older torch than ours.
    """
    if settings.get("infer_backend") != "vllm" or _enabled("DISABLE_VERSION_CHECK"):
        return None
    try:
        installed = version("vllm")
    except PackageNotFoundError:
        return "the vllm of lf-longpo's extra"
    return None if SpecifierSet(_VLLM).contains(installed, prereleases=True) else f"vllm {installed}"


def _enabled(variable: str) -> bool:
    """Whether an environment variable is set to what LLaMA-Factory takes for true."""
    return os.environ.get(variable, "0").lower() in ("true", "y", "1")


def _needs(settings: Mapping[str, Any]) -> Iterator[_Need]:
    for name, packages in _SWITCHES.items():
        if settings.get(name) is True:
            yield _Need(name, packages, f"set {name}: false")
    for name, packages in _PRESENT.items():
        if settings.get(name) is not None:
            yield _Need(name, packages, f"set {name}: null")
    for name in _QUANTIZED:
        if settings.get(name) is not None:
            method = settings.get("quantization_method") or "bnb"
            yield _Need(name, _QUANTIZERS.get(str(method), []), f"set {name}: null")
    yield _Need(
        "infer_backend", _BACKENDS.get(str(settings.get("infer_backend")), []), "set infer_backend: huggingface"
    )
    optimizer = str(settings.get("optim"))
    family = next((packages for start, packages in _OPTIMIZER_FAMILIES.items() if optimizer.startswith(start)), [])
    yield _Need("optim", _OPTIMIZERS.get(optimizer, family), "set optim: adamw_torch")
    trackers = settings.get("report_to")
    for tracker in trackers if isinstance(trackers, list) else [trackers]:
        if tracker == "tensorboard" and not _fault("tensorboardX"):
            continue
        yield _Need("report_to", _TRACKERS.get(str(tracker), []), "set report_to: none")
    if settings.get("fp8") is True:
        backend = "transformer_engine" if settings.get("fp8_backend") == "te" else "torchao"
        yield _Need("fp8", [backend], "set fp8: false")
    if settings.get("flash_attn") == "fa2":
        without = ": training falls back to PyTorch's attention, which takes more memory where rows are padded"
        yield _Need("flash_attn", ["flash-attn"], "set flash_attn: auto", without)
    if settings.get("stage") == "ppo":
        yield _Need("stage", ["trl>=0.8.6,<=0.9.6"], "choose another stage")
    model = settings.get("model_name_or_path")
    if isinstance(model, str) and is_path(model):
        packages = _QUANTIZED_MODELS.get(quantization(model), [])
        yield _Need("model_name_or_path", packages, "set model_name_or_path to a model that is not quantized")
    for name, packages in _VARIABLES.items():
        if _enabled(name):
            yield _Need(name, packages, f"unset {name} in the environment")


def _fault(package: str) -> str:
    """What is wrong with a required package; empty if it is installed."""
    requirement = Requirement(package)
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    fits = requirement.specifier.contains(installed, prereleases=True)
    return "" if fits else f"{package} is needed, not {installed}"


def _install(packages: list[str]) -> str:
    """The command that installs packages; all of them are of the same kind as the first."""
    names = [Requirement(package).name for package in packages]
    if names[0] in _ELSEWHERE:
        return _ELSEWHERE[names[0]]
    if names[0] in _EXTRAS:
        return f"run `pip install -e '.[{_EXTRAS[names[0]]}]'`"
    quoted = " ".join(
        f"'{package}'" if package != name else name for package, name in zip(packages, names, strict=True)
    )
    return f"run `pip install {quoted}{' --no-build-isolation' if names[0] in _BUILT else ''}`"
