"""The actor that LLaMA-Factory runs on each device of a Ray cluster (USE_RAY=1), with the plugin's trainers."""

import os
import sys
from typing import Any

from llamafactory.train import tuner

from lf_longpo.plugin.train.console_output import Screen
from lf_longpo.plugin.train.install import prepare
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.step_progress import StepProgress

OPTIONS = "LONGPO_TRAIN_OPTIONS"
"""The variable with the run's `TrainOptions`: actors get the environment of the process that starts them."""


class RayWorker(tuner.Worker):
    """LLaMA-Factory's actor; its tuner calls the method below in the actor's process."""

    def _training_function(self, config: dict[str, Any]) -> None:
        # Ray forwards an actor's stdout to the process that started the run.
        options = TrainOptions.from_json(os.environ.get(OPTIONS, "{}"))
        screen = Screen(sys.stdout if os.environ.get("RANK", "0") == "0" else None)
        prepared = prepare(config["args"], options, screen.note)
        callbacks = [*config["callbacks"], prepared.guard, StepProgress(screen)]
        super()._training_function({**config, "args": prepared.settings, "callbacks": callbacks})
