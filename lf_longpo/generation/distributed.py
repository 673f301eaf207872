"""`longpo generate --ray`: a run in shards on a Ray cluster. Each shard is an ordinary run in a folder of its own.

Ray Data gives the shards to the nodes. It gives the shards of a lost node to other nodes, where they resume from their
journals: a lost node costs its calls under way. At the end, the shards' journals become those of the run, and its data
set is made from them here. Nodes need this package, the same file system, and the API keys in the environment that Ray
was started in.
"""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from lf_longpo.config import ChatConfig, GenerateConfig, LongRewardGenerateConfig
from lf_longpo.engine.failures import FAILURES
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row, read_rows, write_whole
from lf_longpo.files.run_dir import SUMMARY, changed_settings, locked, save_settings
from lf_longpo.generation.generate import Result, check, collect, generate
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.run_folder.shards import MANIFEST, SHARDS, shard_folders

# Shards per worker, so that all workers end at about the same time; one where each shard has to load a model.
_SHARDS_A_WORKER = 4
# Seconds that a shard of a lost node waits until the file system releases its lock.
_PATIENCE = 300.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def generate_on_ray(config: GenerateConfig, address: str, until: str = "pairs") -> Result:
    """Starts or resumes one generation on a cluster, and registers its pairs.

    Args:
        config: the run's; `output_dir` on a file system that all nodes share.
        address: the cluster's, as for `ray.init`; `local` starts a cluster on this machine.
        until: the stage after which to stop.

    Raises:
        UserError: input, settings or models that cannot work, here or on a node.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install -e '.[ray]'") from None
    if config.max_cost is not None:
        raise UserError("max_cost: a cluster has no common budget; remove it, or run without --ray")
    if isinstance(config, LongRewardGenerateConfig) and config.responses is not None:
        raise UserError("responses: a run on a cluster samples its own responses; remove it, or run without --ray")
    if any(model.batch for model in _models(config)):
        raise UserError("batch: a provider's batches need no cluster; run without --ray")
    began = time.monotonic()
    folder = config.output_dir / SHARDS
    if folder.is_dir():  # so that the check reads the journals of earlier starts
        with locked(folder):
            _merge(config.output_dir, shard_folders(folder))
    questions = asyncio.run(check(config, until))
    if not folder.is_dir() and any(config.output_dir.glob("*.jsonl")):
        raise UserError(
            f"{config.output_dir} holds a run that began without --ray; set another output_dir, or resume without --ray"
        )
    ray.init(address=address, log_to_driver=True)
    try:
        workers = _workers(config)
        with locked(folder):
            shards = _shards(config, folder, questions, workers)
            save_settings(config, config.output_dir)
            (config.output_dir / SUMMARY).unlink(missing_ok=True)  # a summary means that the run has ended
            try:
                _run([shard for shard in shards if not _is_done(shard, until)], until, workers)
            finally:
                _merge(config.output_dir, [shard.output_dir for shard in shards])
    finally:
        ray.shutdown()
    parts = [json.loads((shard.output_dir / SUMMARY).read_text(encoding="utf-8")) for shard in shards]
    lost: list[Row] = [row for shard in shards for row in read_rows(shard.output_dir / FAILURES)]
    return asyncio.run(collect(config, until, parts, lost, time.monotonic() - began))


def _workers(config: GenerateConfig) -> int:
    """How many workers: one per node, or, where workers load models, as many as the GPUs hold."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if gpus := _gpus(config):
        workers = sum(int(node["Resources"].get("GPU", 0)) // gpus for node in nodes)
        if not workers:
            raise UserError(
                f"backend: vllm needs {gpus} GPUs on one node; no node of the cluster has them; lower "
                "tensor_parallel_size or data_parallel_size"
            )
        return workers
    return len(nodes)


def _gpus(config: GenerateConfig) -> int:
    """GPUs that a worker needs for the model that it loads; 0 without one."""
    engine = next((model for model in _models(config) if model.backend == "vllm"), None)
    return engine.tensor_parallel_size * engine.data_parallel_size if engine else 0


def _models(config: GenerateConfig) -> list[ChatConfig]:
    models = [config.policy, config.judge if isinstance(config, LongRewardGenerateConfig) else None]
    return [model for model in models if model]


def _shards(config: GenerateConfig, folder: Path, questions: int, workers: int) -> list[GenerateConfig]:
    """The configurations of the shards: those of an earlier start, or new ones."""
    span = [config.start, config.start + questions]
    edges = _begun(folder)
    if edges and [edges[0], edges[-1]] != span:
        raise UserError(f"{folder} began with other questions; set another output_dir, or the earlier start and end")
    if not edges:
        number = min(questions, workers * (1 if _gpus(config) else _SHARDS_A_WORKER))
        edges = [config.start + questions * i // number for i in range(number + 1)]
    write_whole(folder / MANIFEST, [json.dumps({"edges": edges}), "\n"])
    shares = {name: _share(model, workers) for name in ("policy", "judge") if (model := getattr(config, name, None))}
    return [
        config.model_copy(
            update={
                **shares,
                "start": start,
                "end": end,
                "output_dir": (folder / f"{start:08}-{end:08}").absolute(),
                "dataset_dir": (folder / f"{start:08}-{end:08}" / "data").absolute(),
            }
        )
        for start, end in pairwise(edges)
    ]


def _begun(folder: Path) -> list[int]:
    """The numbers of the questions at which the shards of an earlier start begin and end; empty without such a start.

    Raises:
        UserError: they cannot be read.
    """
    path = folder / MANIFEST
    if path.is_file():
        try:
            return [int(edge) for edge in json.loads(path.read_text(encoding="utf-8"))["edges"]]
        except (ValueError, TypeError, LookupError):
            raise UserError(f"{path} does not hold the edges of the shards; set another output_dir") from None
    folders = shard_folders(folder)  # made by a version without this file
    if not any(any(path.iterdir()) for path in folders):
        return []
    shards = [tuple(map(int, path.name.split("-"))) for path in folders]
    if any(earlier[1] != later[0] for earlier, later in pairwise(shards)):
        raise UserError(f"{folder} lacks some of its shards; set another output_dir")
    return [*(start for start, _ in shards), shards[-1][1]]


def _share(model: ChatConfig, workers: int) -> ChatConfig:
    """A model for one worker: it gets its share of the limits of servers that all workers use."""
    changes: dict[str, Any] = {
        name: max(1, limit // workers)
        for name in ("requests_per_minute", "tokens_per_minute")
        if (limit := getattr(model, name)) is not None
    }
    own = model.backend != "openai" or all(any(name in (url or "") for name in _LOOPBACK) for url in model.base_urls)
    if not own and model.max_concurrency != "auto":
        changes["max_concurrency"] = max(1, model.max_concurrency // workers)
    return model.model_copy(update=changes)


def _is_done(shard: GenerateConfig, until: str) -> bool:
    """Whether a shard has no work left and nothing to retry."""
    path = shard.output_dir / SUMMARY
    if not path.is_file() or changed_settings(shard, shard.output_dir):
        return False
    summary = json.loads(path.read_text(encoding="utf-8"))
    failed = (shard.output_dir / FAILURES).is_file()
    return bool(summary["stage"] == until and not summary["unfinished"] and not failed)


def _run(shards: list[GenerateConfig], until: str, workers: int) -> None:
    if not shards:
        return
    import ray

    items = [{"shard": number, "config": shard.model_dump_json()} for number, shard in enumerate(shards)]
    results = (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map(
            _Worker,  # type: ignore[arg-type]  # a class whose objects are called
            fn_constructor_args=(os.getcwd(), until),
            concurrency=workers,
            num_cpus=1,
            num_gpus=_gpus(shards[0]) or None,
        )
        .take_all()
    )
    if faults := {result["error"] for result in results if result["error"]}:
        raise UserError("; ".join(sorted(faults)))


class _Worker:
    """Runs shards on a node."""

    def __init__(self, folder: str, until: str) -> None:
        os.chdir(folder)  # paths of the configuration are relative to where the command was started
        self._until = until

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        config = GenerateConfig.model_validate_json(row["config"])
        try:
            asyncio.run(generate(config, self._until, _PATIENCE))
        except (UserError, OSError) as error:
            return {"shard": row["shard"], "error": str(error)}
        return {"shard": row["shard"], "error": ""}


def _merge(output_dir: Path, folders: list[Path]) -> None:
    """Copies the journals and the finished calls of the shards to the run."""
    names = {path.name for folder in folders for path in folder.glob("*.jsonl")}
    for name in sorted(names):
        paths = [folder / name for folder in folders]
        write_whole(output_dir / name, chain.from_iterable(_lines(path) for path in paths))
    cache = CallCache(output_dir / CALLS)
    cache.open()
    cache.close()
    with closing(sqlite3.connect(output_dir / CALLS, isolation_level=None)) as db:
        for folder in folders:
            if (folder / CALLS).is_file():
                db.execute("ATTACH ? AS shard", (str(folder / CALLS),))
                # By name: a shard of an earlier version may lack columns, and a shard of a later version may have more.
                there, ours = (
                    [row[1] for row in db.execute(f"PRAGMA {name}.table_info(calls)")] for name in ("shard", "main")
                )
                if columns := ", ".join(name for name in there if name in ours):
                    db.execute(f"INSERT OR IGNORE INTO main.calls ({columns}) SELECT {columns} FROM shard.calls")
                db.execute("DETACH shard")


def _lines(path: Path) -> Iterator[str]:
    """Whole lines; the work of a line that a kill cut off is done again."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if line.endswith("\n"))
