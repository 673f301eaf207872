"""The actor that LLaMA-Factory runs on each device of a Ray cluster (USE_RAY=1), with our trainers in place."""

import os
import sys
from typing import Any

from llamafactory.train import tuner

from lf_longpo.plugin.train.install import prepare
from lf_longpo.plugin.train.screen import Screen
from lf_longpo.plugin.train.watch import Watch


class RayWorker(tuner.Worker):
    """LLaMA-Factory's own, which calls the method below in the actor's process."""

    def _training_function(self, config: dict[str, Any]) -> None:
        # Ray brings an actor's stdout to the process that started the run.
        screen = Screen(sys.stdout if os.environ.get("RANK", "0") == "0" else None)
        args = prepare(config["args"], screen.note)
        super()._training_function({**config, "args": args, "callbacks": [*config["callbacks"], Watch(screen)]})
