"""What a user asks `longpo train` for beyond the recipe, which stays one that LLaMA-Factory takes."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

AUTO = 0
"""`sequence_parallel` as the least number with which the longest example fits the devices."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of `longpo train`; the defaults train as the recipe alone says.

    Attributes:
        sequence_parallel: number of processes over which each row is split; `AUTO` until the run starts its processes.
        pair_weight: what weights the loss of a pair, see `pair_losses`; None: every pair counts the same.
        pair_margin: margin of a pair for a reward gap of 1, see `pair_losses`.
        pref_loss: the loss that replaces the recipe's, see `pair_losses`.
        max_row_tokens: the most tokens of a prompt's row; a prompt with more responses gets several rows. None: no
            limit.
    """

    sequence_parallel: int = 1
    pair_weight: Literal["gap"] | None = None
    pair_margin: float = 0.0
    pref_loss: Literal["listwise"] | None = None
    max_row_tokens: int | None = None

    @property
    def needs_rewards(self) -> bool:
        """Whether the loss depends on the rewards of the responses."""
        return bool(self.pair_weight or self.pair_margin or self.pref_loss)

    @property
    def of_pairs(self) -> str:
        """The options above that are given, as on the command line; empty if there are none."""
        names = ("pair_weight", "pair_margin", "pref_loss", "max_row_tokens")
        return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(self, name))

    def to_json(self) -> str:
        """As one line, for the processes that torchrun starts."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The options that `to_json` wrote."""
        return cls(**json.loads(line))
