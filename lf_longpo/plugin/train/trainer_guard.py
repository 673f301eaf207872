"""Refuses to train with LLaMA-Factory's own trainer unless the reason for it was reported."""

from typing import Any

from transformers import TrainerCallback

from lf_longpo.errors import UserError


class TrainerGuard(TrainerCallback):
    """Stops a run before its first step where nothing decided which trainer it gets.

    The plugin's trainers are installed under the names by which LLaMA-Factory 0.9.5 builds its own. A release that
    imports its trainers in another way would build them under other names, and train without notice as plain
    LLaMA-Factory does.

    Attributes:
        decided: whether the plugin built the trainer, or reported why plain LLaMA-Factory trains.
    """

    def __init__(self) -> None:
        self.decided = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Checks before the first step.

        Raises:
            UserError: nothing was decided.
        """
        self._check()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Checks an evaluation without training, as above."""
        self._check()

    def _check(self) -> None:
        if not self.decided:
            from importlib.metadata import version

            raise UserError(
                f"the trainer of longpo train is not in use with LLaMA-Factory {version('llamafactory')}, which builds "
                "its trainers in another way than 0.9.5; run `pip install llamafactory==0.9.5`, or train with longpo "
                "train --stock"
            )
