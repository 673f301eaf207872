"""Pairs of the same prompt as one element of the data set, and how many of these elements a step has.

The sampler, the processes and the epochs then work on prompts instead of pairs. A step has about as many pairs as the
recipe's batch: with a mean of m pairs for each prompt, a batch of B pairs becomes round(B / m) prompts, and the
accumulation changes so that batch times accumulation stays nearest to the recipe's number of pairs. Both are at least
1, so a step has at least one prompt for each process. Where every prompt has one pair, nothing changes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.data import Dataset

from lf_longpo.plugin.train.packing import IGNORE

if TYPE_CHECKING:
    import datasets
    import numpy
    from llamafactory.hparams import TrainingArguments


class Groups(Dataset[dict[str, Any]]):
    """LLaMA-Factory's tokenised pairs, grouped by prompt, token for token; groups are in the order of the data set.

    An element is a mapping: `pairs`, LLaMA-Factory's features of the pairs, and `pairs_per_group`, the mean number of
    pairs of an element.

    Args:
        pairs: LLaMA-Factory's.
        max_row_tokens: the most tokens of prompt and distinct responses of an element; further pairs of the prompt
            go into another element, which has the prompt again. A single pair is never divided. None: no limit.
    """

    def __init__(self, pairs: "datasets.Dataset", max_row_tokens: int | None = None) -> None:
        self.pairs = pairs
        sizes = _sizes(pairs, responses=max_row_tokens is not None)
        self.prompts = len({size.digest for size in sizes})
        """The number of different prompts."""
        self._members = grouped(sizes, max_row_tokens)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, number: int) -> dict[str, Any]:
        pairs = [self.pairs[member] for member in self._members[number]]
        return {"pairs": pairs, "pairs_per_group": self.pairs_per_group}

    @property
    def pairs_per_group(self) -> float:
        """The mean number of pairs of an element."""
        return len(self.pairs) / len(self)

    @property
    def shared(self) -> bool:
        """Whether any element has several pairs."""
        return len(self.pairs) > len(self)


class PairSize(NamedTuple):
    """What decides in which element a pair is.

    Attributes:
        digest: of the prompt's tokens.
        prompt: number of its tokens.
        responses: number of tokens of both responses, by the digest of each.
    """

    digest: str
    prompt: int
    responses: Mapping[str, int]


def grouped(sizes: Sequence[PairSize], max_row_tokens: int | None) -> list[list[int]]:
    """The numbers of the pairs of each element, prompt by prompt in the order of their first pairs."""
    prompts: dict[str, list[int]] = {}
    for number, size in enumerate(sizes):
        prompts.setdefault(size.digest, []).append(number)
    return [
        part
        for members in prompts.values()
        for part in split_by_tokens(members, [sizes[number] for number in members], max_row_tokens)
    ]


def _sizes(pairs: "datasets.Dataset", responses: bool) -> list[PairSize]:
    """The size of each pair; its responses are empty unless they are asked for."""
    sides = ("chosen", "rejected") if responses else ("chosen",)
    columns = [f"{side}_{part}" for side in sides for part in ("input_ids", "labels")]
    found = []
    # Arrow's arrays: a long row as a list of Python's numbers takes milliseconds.
    for table in pairs.select_columns(columns).with_format("arrow"):
        row = {column: table[column][0].values.to_numpy() for column in columns}
        in_loss = row["chosen_labels"] != IGNORE
        prompt = int(in_loss.argmax()) if in_loss.any() else len(in_loss)
        lengths = {}
        if responses:
            rests = (row[f"{side}_input_ids"][prompt:] for side in sides)
            lengths = {_digest(rest): len(rest) for rest in rests}
        found.append(PairSize(_digest(row["chosen_input_ids"][:prompt]), prompt, lengths))
    return found


def _digest(tokens: "numpy.ndarray") -> str:
    return hashlib.sha256(tokens.astype("int64", copy=False).tobytes()).hexdigest()


def split_by_tokens(members: Sequence[int], sizes: Sequence[PairSize], limit: int | None) -> list[list[int]]:
    """Divides the pairs of one prompt, in order, into parts of at most `limit` tokens of prompt and responses."""
    if limit is None:
        return [list(members)]
    parts: list[list[int]] = []
    held: dict[str, int] = {}
    for member, size in zip(members, sizes, strict=True):
        together = {**held, **size.responses}
        if parts and size.prompt + sum(together.values()) <= limit:
            parts[-1].append(member)
            held = together
        else:
            parts.append([member])
            held = dict(size.responses)
    return parts


class StepSize(NamedTuple):
    """Elements of a step in one process.

    Attributes:
        batch: elements computed at the same time.
        accumulation: batches of a step.
    """

    batch: int
    accumulation: int


def step_size(batch: int, accumulation: int, pairs_per_group: float) -> StepSize:
    """How many elements give the recipe's number of pairs, see the module.

    Args:
        batch: the recipe's, in pairs.
        accumulation: the recipe's.
        pairs_per_group: mean number of pairs of an element.
    """
    groups = max(1, round(batch / pairs_per_group))
    return StepSize(groups, max(1, round(batch * accumulation / (groups * pairs_per_group))))


def use_step_size(args: "TrainingArguments", size: StepSize) -> None:
    """Sets batch and accumulation in LLaMA-Factory's arguments, and in DeepSpeed's configuration, which has a copy."""
    args.per_device_train_batch_size, args.gradient_accumulation_steps = size
    if args.deepspeed_plugin is not None:
        args.deepspeed_plugin.hf_ds_config.config.update(
            train_micro_batch_size_per_gpu=size.batch,
            gradient_accumulation_steps=size.accumulation,
            train_batch_size=size.batch * size.accumulation * args.world_size,
        )
