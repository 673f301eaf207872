"""The actor that LLaMA-Factory runs on each device of a Ray cluster (USE_RAY=1), with our trainers in place."""

from typing import Any

from llamafactory.train import tuner

from lf_longpo.plugin.train.install import install


class RayWorker(tuner.Worker):
    """LLaMA-Factory's own, which calls the method below in the actor's process."""

    def _training_function(self, config: dict[str, Any]) -> None:
        install()
        super()._training_function(config)
