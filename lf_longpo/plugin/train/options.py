"""What a user asks `longpo train` for beyond the recipe, which stays one that LLaMA-Factory takes."""

import json
from dataclasses import asdict, dataclass
from typing import Self

AUTO = 0
"""`sequence_parallel` as the least number with which the longest example fits the devices."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of `longpo train`; the defaults train as the recipe alone says.

    Attributes:
        sequence_parallel: number of processes over which each row is split; `AUTO` until the run starts its processes.
    """

    sequence_parallel: int = 1

    def to_json(self) -> str:
        """As one line, for the processes that torchrun starts."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The options that `to_json` wrote."""
        return cls(**json.loads(line))
