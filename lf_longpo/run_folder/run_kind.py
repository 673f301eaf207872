"""What kind of run a folder holds, and in which journals its stages put their rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.config.yaml_text import parse_yaml
from lf_longpo.errors import UserError, first_line
from lf_longpo.evaluation.results import PREDICTIONS, RESULTS
from lf_longpo.files.run_dir import CONFIG, SUMMARY
from lf_longpo.longmab.rollout_files import PROBES, ROLLOUTS
from lf_longpo.longreward.response_files import NOTES, SAMPLES, SCORES
from lf_longpo.synthesis.self_instruct_run import WRITTEN


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage and the journal of its rows."""

    name: str
    journal: str
    rows: int | None
    """Rows of one question, at most; None where responses are given: the first stage holds all of them."""


@dataclass(frozen=True, slots=True)
class RunKind:
    """A kind of run."""

    command: str
    """As the user types it, such as `longpo evaluate longqa`."""
    method: str | None
    """Of a generation: `longmab` or `longreward`."""
    stages: tuple[Stage, ...]
    summary: str = SUMMARY
    """The file that says how the run ended."""
    makes_pairs: bool = False


def kind_of(folder: Path) -> RunKind:
    """The kind of the run in a folder, from its config.yaml, which may be of an earlier version.

    Raises:
        UserError: the folder holds no run of `longpo generate`, `score`, `evaluate` or `synthesize self-instruct`.
    """
    path = folder / CONFIG
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run: {CONFIG} is missing; name the output_dir of a run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}; fix the file or name another folder") from None
    kind = kind_of_settings(settings) if isinstance(settings, dict) else None
    if kind is None:
        raise UserError(f"{path} is not a config of a run of longpo; name another folder")
    return kind


def kind_of_settings(settings: Mapping[str, Any]) -> RunKind | None:
    """The kind of run that has these settings; None if no kind has them."""
    try:
        if settings.get("method") == "longmab":
            stages = Stage("probe", PROBES, 1), Stage("rollout", ROLLOUTS, int(settings["longmab"]["rounds"]))
            return RunKind("longpo generate", "longmab", stages, makes_pairs=True)
        if settings.get("method") == "longreward":
            samples = None if settings.get("responses") else int(settings["longreward"]["num_samples"])
            return RunKind("longpo generate", "longreward", _longreward(samples), makes_pairs=True)
        if "mode" in settings and "judge" in settings:
            return RunKind("longpo evaluate judge", None, (Stage("judge", PREDICTIONS, 1),), RESULTS)
        if "contexts" in settings and "judge" in settings:
            return RunKind("longpo score", None, _longreward(None))
        if "questions_per_document" in settings:
            return RunKind("longpo synthesize self-instruct", None, (Stage("write", WRITTEN, 1),))
        if "max_prompt_tokens" in settings and "samples" in settings:
            stage = Stage("answer", PREDICTIONS, int(settings["samples"]))
            return RunKind(f"longpo evaluate {_benchmark(settings)}", None, (stage,), RESULTS)
    except (KeyError, TypeError, ValueError):
        return None
    return None


def _longreward(samples: int | None) -> tuple[Stage, ...]:
    first = "sample" if samples else "given"
    return Stage(first, SAMPLES, samples), Stage("extract", NOTES, 1), Stage("score", SCORES, samples)


def _benchmark(settings: Mapping[str, Any]) -> str:
    own = {"few_shots": "longbench-chat", "against": "winrate", "judge": "longbench"}
    return next((name for key, name in own.items() if key in settings), "longqa")
