"""`longpo generate --ray`: a run in shards on a Ray cluster, each of them an ordinary run in a folder of its own.

Ray Data hands the shards to the nodes, and those of a lost node to others, where they carry on from their journals:
what a lost node costs is its calls under way. In the end the shards' journals become those of the run, and its data set
is made of them here. Nodes need this package, the same file system, and the API keys in the environment that Ray was
started in.
"""

import asyncio
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from lf_longpo.config import ChatConfig, GenerateConfig
from lf_longpo.engine.pipeline import FAILURES
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row, read_rows, write_whole
from lf_longpo.files.run_dir import SUMMARY, changed_settings, locked, save_settings
from lf_longpo.generation.generate import SHARDS, Result, check, collect, generate
from lf_longpo.models.cache import CALLS, CallCache

# Shards a worker, so that all end at about the same time; one where each has to load a model.
_SHARDS_A_WORKER = 4
# Seconds that a shard of a lost node waits for the file system to notice.
_PATIENCE = 300.0
# Holds where the shards begin and end; written before any of them is begun.
_MANIFEST = "shards.json"
_SHARD = re.compile(r"\d+-\d+")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def generate_on_ray(config: GenerateConfig, address: str, until: str = "pairs") -> Result:
    """Runs or carries on one generation on a cluster, and registers its pairs.

    Args:
        config: the run's; `output_dir` on a file system that all nodes share.
        address: the cluster's, as for `ray.init`; `local` makes one of this machine.
        until: the stage after which to stop.

    Raises:
        UserError: input, settings or models that cannot work, here or on a node.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install -e '.[ray]'") from None
    if config.max_cost is not None:
        raise UserError("max_cost: nobody keeps one budget over a cluster; leave it out, or run without --ray")
    if config.responses is not None:
        raise UserError("responses: a run on a cluster samples its own; leave it out, or run without --ray")
    if any(model and model.batch for model in (config.policy, config.judge)):
        raise UserError("batch: a provider's batches need no cluster; run without --ray")
    began = time.monotonic()
    folder = config.output_dir / SHARDS
    if folder.is_dir():  # so that the check sees what an earlier start came to
        with locked(folder):
            _merge(config.output_dir, _shard_folders(folder))
    questions = asyncio.run(check(config, until))
    if not folder.is_dir() and any(config.output_dir.glob("*.jsonl")):
        raise UserError(
            f"{config.output_dir} holds a run begun without --ray; set another output_dir, or carry on without"
        )
    ray.init(address=address, log_to_driver=True)
    try:
        workers = _workers(config)
        with locked(folder):
            shards = _shards(config, folder, questions, workers)
            save_settings(config, config.output_dir)
            (config.output_dir / SUMMARY).unlink(missing_ok=True)  # tells that the run has ended
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
    """One a node, or as many as the GPUs hold of what a worker loads itself."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if gpus := _gpus(config):
        workers = sum(int(node["Resources"].get("GPU", 0)) // gpus for node in nodes)
        if not workers:
            raise UserError(f"backend: vllm needs {gpus} GPUs on one node; no node of the cluster has them")
        return workers
    return len(nodes)


def _gpus(config: GenerateConfig) -> int:
    engine = next((model for model in (config.policy, config.judge) if model and model.backend == "vllm"), None)
    return engine.tensor_parallel_size * engine.data_parallel_size if engine else 0


def _shards(config: GenerateConfig, folder: Path, questions: int, workers: int) -> list[GenerateConfig]:
    """The runs that make up this one: those that were begun, or new ones."""
    span = [config.start, config.start + questions]
    edges = _begun(folder)
    if edges and [edges[0], edges[-1]] != span:
        raise UserError(f"{folder} was begun for other questions; set another output_dir or put start and end back")
    if not edges:
        number = min(questions, workers * (1 if _gpus(config) else _SHARDS_A_WORKER))
        edges = [config.start + questions * place // number for place in range(number + 1)]
    write_whole(folder / _MANIFEST, [json.dumps({"edges": edges}), "\n"])
    shares = {
        name: _share(model, workers) for name in ("policy", "judge") if (model := getattr(config, name)) is not None
    }
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
    """The numbers of the questions at which the shards of an earlier start begin and end; none where none was begun.

    Raises:
        UserError: they cannot be read.
    """
    path = folder / _MANIFEST
    if path.is_file():
        try:
            return [int(edge) for edge in json.loads(path.read_text(encoding="utf-8"))["edges"]]
        except (ValueError, TypeError, LookupError):
            raise UserError(f"{path} does not hold the edges of the shards; set another output_dir") from None
    folders = _shard_folders(folder)  # of a version that had no such file
    if not any(any(path.iterdir()) for path in folders):
        return []
    shards = [tuple(map(int, path.name.split("-"))) for path in folders]
    if any(one[1] != other[0] for one, other in pairwise(shards)):
        raise UserError(f"{folder} lacks some of its shards; set another output_dir")
    return [*(start for start, _ in shards), shards[-1][1]]


def _shard_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


def _share(model: ChatConfig, workers: int) -> ChatConfig:
    """A worker's share of what servers that all workers use together allow; a node's own server is the worker's."""
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
    """Whether nothing of a shard is left to be done, or to be tried again."""
    path = shard.output_dir / SUMMARY
    if not path.is_file() or changed_settings(shard, shard.output_dir):
        return False
    told = json.loads(path.read_text(encoding="utf-8"))
    return told["stage"] == until and not (told["unfinished"] or (shard.output_dir / FAILURES).is_file())


def _run(shards: list[GenerateConfig], until: str, workers: int) -> None:
    if not shards:
        return
    import ray

    items = [{"shard": number, "config": shard.model_dump_json()} for number, shard in enumerate(shards)]
    results = (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map(
            _Worker,
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
    """What runs on a node."""

    def __init__(self, folder: str, until: str) -> None:
        os.chdir(folder)  # paths of the configuration count from where the command was given
        self._until = until

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        config = GenerateConfig.model_validate_json(row["config"])
        try:
            asyncio.run(generate(config, self._until, _PATIENCE))
        except (UserError, OSError) as error:
            return {"shard": row["shard"], "error": str(error)}
        return {"shard": row["shard"], "error": ""}


def _merge(output_dir: Path, folders: list[Path]) -> None:
    """Makes the shards' journals and finished calls those of the run; the shards keep theirs."""
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
                # By name: a shard of an earlier version may lack some, one of a later version have more.
                there, ours = (
                    [row[1] for row in db.execute(f"PRAGMA {name}.table_info(calls)")] for name in ("shard", "main")
                )
                if columns := ", ".join(name for name in there if name in ours):
                    db.execute(f"INSERT OR IGNORE INTO main.calls ({columns}) SELECT {columns} FROM shard.calls")
                db.execute("DETACH shard")


def _lines(path: Path) -> Iterator[str]:
    """Whole lines; one that a kill cut off is work owed again."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if line.endswith("\n"))
