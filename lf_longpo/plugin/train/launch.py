"""`longpo train`: one process, torchrun for several devices, or Ray, as `llamafactory-cli train` launches."""

import os
import subprocess
import sys
from collections.abc import Sequence

from lf_longpo.errors import UserError
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.settings import check_values
from lf_longpo.plugin.recipe import read_recipe


def train(recipe: str, overrides: Sequence[str], stock: bool) -> int:
    """Trains and gives the exit code.

    The environment tells the machine, by LLaMA-Factory's names: NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR,
    MASTER_PORT, MAX_RESTARTS, RDZV_ID, FORCE_TORCHRUN, USE_RAY.

    Args:
        recipe: LLaMA-Factory's.
        overrides: key=value on top of it.
        stock: whether plain LLaMA-Factory shall train.

    Raises:
        UserError: the recipe cannot be read or has settings that LLaMA-Factory would not take.
    """
    settings = read_recipe(recipe, overrides)
    findings = Findings()
    check_values(settings, findings)
    if findings.errors:
        raise UserError("; ".join(f"{where}: {message}" for where, message in findings.errors))
    from llamafactory.extras.misc import get_device_count, is_env_enabled, use_ray

    if stock:
        return _run([sys.executable, "-m", "llamafactory.cli", "train", recipe, *overrides])
    # DeepSpeed wants a launcher even for one process.
    many = get_device_count() > 1 or settings.get("deepspeed")
    if is_env_enabled("FORCE_TORCHRUN") or (many and not use_ray()):
        return _run([*_torchrun(max(1, get_device_count())), recipe, *overrides])
    from lf_longpo.plugin.train.worker import work

    work(recipe, overrides)
    return 0


def _torchrun(devices: int) -> list[str]:
    """torchrun with the environment's settings."""
    from llamafactory.extras.misc import find_available_port

    told = os.environ.get
    address = (told("MASTER_ADDR", "127.0.0.1"), told("MASTER_PORT") or str(find_available_port()))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", told("NPROC_PER_NODE", str(devices))]
    if rendezvous := told("RDZV_ID"):
        nodes = f"{told('MIN_NNODES')}:{told('MAX_NNODES')}" if told("MIN_NNODES") else told("NNODES", "1")
        command += ["--nnodes", nodes, "--rdzv-id", rendezvous, "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", ":".join(address), "--max-restarts", told("MAX_RESTARTS", "0")]
    else:
        command += ["--nnodes", told("NNODES", "1"), "--node-rank", told("NODE_RANK", "0")]
        command += ["--master-addr", address[0], "--master-port", address[1]]
    return [*command, "-m", "lf_longpo.plugin.train.worker"]


def _run(command: list[str]) -> int:
    faster = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "TORCH_NCCL_AVOID_RECORD_STREAMS": "1"}
    return subprocess.run(command, env=faster | os.environ).returncode
