"""`longpo train`: one process, torchrun for several devices, or Ray, as `llamafactory-cli train` launches."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lf_longpo.config.shipped import resolve
from lf_longpo.errors import UserError
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.prerequisites import check_prerequisites
from lf_longpo.plugin.check.settings_check import check_values
from lf_longpo.plugin.encoding import check_template
from lf_longpo.plugin.recipe import read_recipe
from lf_longpo.plugin.train.console_output import diverted
from lf_longpo.plugin.train.option_checks import check_options, check_packed
from lf_longpo.plugin.train.options import AUTO, TrainOptions
from lf_longpo.plugin.train.parallel_choice import least_parallel
from lf_longpo.plugin.train.worker import FAILURE_FILE, Failure, log_of, run


def train(recipe: str, overrides: Sequence[str], options: TrainOptions, stock: bool, verbose: bool) -> int:
    """Trains and returns the exit code.

    The environment describes the machine with LLaMA-Factory's variables: NPROC_PER_NODE, NNODES, NODE_RANK,
    MASTER_ADDR, MASTER_PORT, MAX_RESTARTS, RDZV_ID, FORCE_TORCHRUN, USE_RAY.

    Args:
        recipe: path of LLaMA-Factory's recipe.
        overrides: key=value; they replace settings of the recipe.
        options: what the plugin's trainers do beyond the recipe.
        stock: whether plain LLaMA-Factory trains.
        verbose: whether LLaMA-Factory's output goes to the screen as well as to the log.

    Raises:
        UserError: the recipe cannot be read, LLaMA-Factory would refuse its settings, or the options do not fit.
    """
    if stock and options.sequence_parallel != 1:
        raise UserError("plain LLaMA-Factory does not split rows. Remove --stock or --sequence-parallel")
    recipe = str(resolve(recipe))
    settings = read_recipe(recipe, overrides)
    check_options(options, settings)
    if stock:
        check_packed(options, "--stock is given")
    if isinstance(settings.get("template"), str):
        check_template(settings["template"], "template")
    with diverted() as output:
        if not stock:
            output.screen.note("loading LLaMA-Factory")
        many = _check(recipe, settings)
        if options.sequence_parallel == AUTO:
            least = least_parallel(recipe, overrides, _processes(settings, many), options.max_row_tokens)
            options = replace(options, sequence_parallel=least)
        if not (stock or many):
            # Ray prints the actors' steps to this process's stdout.
            output.keep(log_of(settings), verbose or _on_ray())
            output.screen.note(f"the whole log: {log_of(settings)}")
            failure = run(settings, options, output.screen)
    if stock:
        return _run_stock(recipe, overrides, settings)
    if many:
        failure = _run_many(recipe, overrides, settings, options, verbose)
    if failure is None:
        return 0
    print(f"error: {failure.message}\nThe whole log: {log_of(settings)}", file=sys.stderr)
    return failure.exit_code


def _processes(settings: Mapping[str, Any], many: bool) -> int:
    """Number of processes of the run, on all nodes."""
    from llamafactory.extras.misc import get_device_count

    if _on_ray():
        return int(settings.get("ray_num_workers", 1))  # LLaMA-Factory's default
    if not many:
        return 1
    here = int(os.environ.get("NPROC_PER_NODE", max(1, get_device_count())))
    return here * int(os.environ.get("NNODES", "1"))


def _on_ray() -> bool:
    from llamafactory.extras.misc import use_ray

    return use_ray()


def _check(recipe: str, settings: Mapping[str, Any]) -> bool:
    """Refuses settings that cannot work; returns whether torchrun has to start the processes."""
    findings = Findings()
    check_values(settings, findings)
    check_prerequisites(recipe, settings, findings)
    if findings.errors:
        raise UserError("; ".join(f"{where}: {message}" for where, message in findings.errors))
    from llamafactory.extras.misc import get_device_count, is_env_enabled

    # DeepSpeed needs a launcher even for one process.
    many = get_device_count() > 1 or settings.get("deepspeed")
    return bool(is_env_enabled("FORCE_TORCHRUN") or (many and not _on_ray()))


def _run_stock(recipe: str, overrides: Sequence[str], settings: Mapping[str, Any]) -> int:
    from lf_longpo.plugin.train.compute_format import emulates

    if emulates(settings):
        print(
            "longpo train: this machine has no bfloat16 instructions. Plain LLaMA-Factory still computes in the format "
            "of the model's files, which can be many times slower. Remove --stock to avoid it.",
            file=sys.stderr,
        )
    deepspeed = [f"deepspeed={settings['deepspeed']}"] if isinstance(settings.get("deepspeed"), str) else []
    return _run([sys.executable, "-m", "llamafactory.cli", "train", recipe, *overrides, *deepspeed])


def _run_many(
    recipe: str, overrides: Sequence[str], settings: Mapping[str, Any], options: TrainOptions, verbose: bool
) -> Failure | None:
    from llamafactory.extras.misc import get_device_count

    flags = ["--options", options.to_json(), *(["--verbose"] if verbose else [])]
    command = [*_torchrun(max(1, get_device_count())), recipe, *overrides, *flags]
    log = log_of(settings)
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"longpo train: starting the processes; the whole log: {log}", flush=True)
    with tempfile.TemporaryDirectory() as folder, log.open("ab") as file:
        reason = Path(folder, "failure")
        exit_code = _run(command, None if verbose else file, {FAILURE_FILE: str(reason)})
        if exit_code and reason.is_file():
            return Failure(*json.loads(reason.read_text(encoding="utf-8")))
    return Failure(f"a training process ended with exit code {exit_code}", exit_code) if exit_code else None


def _torchrun(devices: int) -> list[str]:
    """The torchrun command with the environment's settings."""
    from llamafactory.extras.misc import find_available_port

    variable = os.environ.get
    address = (variable("MASTER_ADDR", "127.0.0.1"), variable("MASTER_PORT") or str(find_available_port()))
    processes = variable("NPROC_PER_NODE", str(devices))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes]
    if rendezvous := variable("RDZV_ID"):
        nodes = variable("NNODES", "1")
        if variable("MIN_NNODES") and variable("MAX_NNODES"):
            nodes = f"{variable('MIN_NNODES')}:{variable('MAX_NNODES')}"
        command += ["--nnodes", nodes, "--rdzv-id", rendezvous, "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", ":".join(address), "--max-restarts", variable("MAX_RESTARTS", "0")]
    else:
        command += ["--nnodes", variable("NNODES", "1"), "--node-rank", variable("NODE_RANK", "0")]
        command += ["--master-addr", address[0], "--master-port", address[1]]
    return [*command, "-m", "lf_longpo.plugin.train.worker"]


def _run(command: list[str], stderr: Any = None, variables: dict[str, str] | None = None) -> int:
    faster = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "TORCH_NCCL_AVOID_RECORD_STREAMS": "1"}
    environment = {**faster, **os.environ, **(variables or {})}
    return subprocess.run(command, env=environment, stderr=stderr).returncode
