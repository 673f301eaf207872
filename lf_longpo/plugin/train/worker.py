"""What runs in every process of `longpo train`: LLaMA-Factory's own entry point, with the plugin's trainers."""

import argparse
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.errors import UserError, first_line
from lf_longpo.plugin.compat import replace_loading_steps, use_ray_worker
from lf_longpo.plugin.recipe import read_recipe
from lf_longpo.plugin.train.console_output import Screen, diverted
from lf_longpo.plugin.train.options import TrainOptions

# Names the file to which a process under torchrun writes why it failed; `longpo train` reads it.
FAILURE_FILE = "LONGPO_FAILURE_FILE"


class Failure(NamedTuple):
    """Why a training ended early."""

    message: str
    exit_code: int


def log_of(settings: Mapping[str, Any]) -> Path:
    """The file that gets the libraries' output."""
    return Path(settings.get("output_dir") or "trainer_output") / "train.log"  # transformers' own default


def work(settings: Mapping[str, Any], options: TrainOptions, screen: Screen) -> None:
    """Trains in this process.

    Raises:
        UserError: the model does not compute the same on packed rows, or LLaMA-Factory did not build our trainer.
    """
    from llamafactory.extras.misc import use_ray
    from llamafactory.train import tuner

    if use_ray():
        from lf_longpo.plugin.train.ray_worker import OPTIONS, RayWorker

        os.environ[OPTIONS] = options.to_json()  # LLaMA-Factory gives the actors this process's environment
        use_ray_worker(RayWorker)
        tuner.run_exp(dict(settings))
        return
    from lf_longpo.plugin.train.install import prepare
    from lf_longpo.plugin.train.step_progress import StepProgress

    prepared = prepare(settings, options, screen.note)
    _announce(screen.note)
    # DeepSpeed collects garbage about twelve times at its start, each time over all imported modules.
    gc.freeze()
    tuner.run_exp(prepared.settings, callbacks=[prepared.guard, StepProgress(screen)])


def run(settings: Mapping[str, Any], options: TrainOptions, screen: Screen) -> Failure | None:
    """Trains as `work`. A failure is printed in full, which goes to the log, and returned as one line."""
    try:
        work(settings, options, screen)
    except UserError as error:
        message = str(getattr(error, "cause", error))  # Ray wraps what an actor raised and adds its traceback
        print(f"error: {message}", file=sys.stderr)
        return Failure(message, 2)
    except Exception as error:  # libraries raise many kinds
        traceback.print_exc()
        return Failure(_in_short(error), 1)
    return None


def _in_short(error: Exception) -> str:
    import torch

    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return f"out of memory ({first_line(error)}); run longpo check to see what takes memory and what lowers it"
    return f"{type(error).__name__}: {first_line(error)}"


def _announce(note: Callable[[str], None]) -> None:
    """Lets LLaMA-Factory's DPO and SFT workflows report what they load before they load it."""

    def reporting(sentence: Callable[..., str]) -> Callable[[Any], Any]:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                note(sentence(*arguments))
                return function(*arguments, **options)

            return call

        return wrap

    replace_loading_steps(
        reporting(lambda _, __, data, *___: f"reading the data: {', '.join(data.dataset or [])}"),
        reporting(lambda _, model, *__: f"loading the model: {model.model_name_or_path}"),
    )


def main(arguments: Sequence[str]) -> int:
    """One process of several, started by torchrun."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--options", type=TrainOptions.from_json, default=TrainOptions())
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    settings = read_recipe(options.recipe, options.overrides)
    with diverted() as output:
        output.keep(log_of(settings), options.verbose)
        failure = run(settings, options.options, output.screen)
    if failure is None:
        return 0
    if path := os.environ.get(FAILURE_FILE):
        Path(path).write_text(json.dumps(failure), encoding="utf-8")
    else:
        print(f"error: {failure.message}", file=sys.stderr)
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
