"""How LLaMA-Factory reads a data set of pairs under `longpo train`: held out by prompt, and with rewards if needed."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.plugin.compat import pair_data_steps
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.pair_collator import REWARDS

if TYPE_CHECKING:
    from datasets import Dataset
    from llamafactory.data.parser import DatasetAttr


def reading_pairs(options: TrainOptions) -> Callable[[Any], Callable[..., None]]:
    """A wrapper of LLaMA-Factory's DPO workflow.

    Args:
        options: of `longpo train`; they decide whether the pairs keep their rewards.
    """

    def wrap(run_dpo: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any, **others: Any) -> None:
            changes: dict[str, Callable[[Any], Any]] = {"split": _splitting_by_prompt}
            if options.needs_rewards:
                changes |= {"align": _aligning_rewards, "processor": _encoding_rewards}
            with pair_data_steps(**changes):
                run_dpo(*arguments, **others)

        return run

    return wrap


def _splitting_by_prompt(split: Any) -> Callable[..., Any]:
    """LLaMA-Factory's `split_dataset`, with `val_size` as the share of prompts that are held out with all their pairs.

    Where every prompt has one pair, the rows are LLaMA-Factory's.
    """

    def split_by_prompt(dataset: Any, eval_dataset: Any, data_args: Any, seed: int) -> Any:
        if dataset is None or data_args.streaming or data_args.val_size <= 1e-6 or eval_dataset is not None:
            return split(dataset, eval_dataset, data_args, seed)
        from datasets import Dataset

        prompts: dict[str, list[int]] = {}
        for number, row in enumerate(dataset.select_columns(["_prompt", "_system", "_tools"])):
            prompts.setdefault(hashlib.sha256(repr(row).encode()).hexdigest(), []).append(number)
        size = data_args.val_size
        if size > 1:
            size = max(1, round(int(size) * len(prompts) / len(dataset)))
        numbers = Dataset.from_dict({"rows": list(prompts.values())}).train_test_split(test_size=size, seed=seed)
        train, held_out = (
            dataset.select([row for rows in numbers[name]["rows"] for row in rows]) for name in ("train", "test")
        )
        return {"train": train}, {"validation": held_out}

    return split_by_prompt


def _aligning_rewards(align: Any) -> Callable[..., Any]:
    """LLaMA-Factory's `align_dataset`, which converts every row and keeps no other columns, with both rewards."""

    def align_with_rewards(dataset: "Dataset", attr: "DatasetAttr", *others: Any) -> "Dataset":
        rewards = _checked_rewards(dataset, attr.dataset_name)
        aligned = align(dataset, attr, *others)
        for column, values in rewards.items():
            aligned = aligned.add_column(column, values)
        return aligned

    return align_with_rewards


def _checked_rewards(dataset: "Dataset", name: str) -> dict[str, list[float]]:
    """The rewards of all rows, by column.

    Raises:
        UserError: a column or a value is missing, or a rejected response has the higher reward.
    """
    present = getattr(dataset, "column_names", None) or []
    if missing := [column for column in REWARDS if column not in present]:
        raise UserError(
            f"data set {name} has no column {' and no column '.join(missing)}, which --pair-weight, --pair-margin and "
            "--pref-loss listwise need; generate it again with longpo generate, or remove these options"
        )
    rewards = {column: list(dataset[column]) for column in REWARDS}
    for column, values in rewards.items():
        for number, value in enumerate(values, 1):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
                raise UserError(f"data set {name}, row {number}: {column} is {value!r}; set a number")
    for number, (chosen, rejected) in enumerate(zip(*rewards.values(), strict=True), 1):
        if chosen < rejected:
            raise UserError(
                f"data set {name}, row {number}: chosen_reward {chosen} is lower than rejected_reward {rejected}; "
                "exchange the responses, or remove the row"
            )
    return {column: list(map(float, values)) for column, values in rewards.items()}


class _RewardEncoder:
    """LLaMA-Factory's encoder of pairs, which keeps both rewards of the pairs that it does not drop.

    Args:
        encoder: LLaMA-Factory's.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.print_data_example = encoder.print_data_example

    def preprocess_dataset(self, examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Encodes a batch of rows, one at a time: LLaMA-Factory drops rows without saying which."""
        encoded: dict[str, list[Any]] = {}
        for number in range(len(examples[REWARDS[0]])):
            row = {column: values[number : number + 1] for column, values in examples.items()}
            if found := self._encoder.preprocess_dataset(row):
                for column, values in (found | {column: row[column] for column in REWARDS}).items():
                    encoded.setdefault(column, []).extend(values)
        return encoded


def _encoding_rewards(make: Any) -> Callable[..., _RewardEncoder]:
    """LLaMA-Factory's `_get_dataset_processor`, with `_RewardEncoder`."""

    def make_with_rewards(*arguments: Any, **others: Any) -> _RewardEncoder:
        return _RewardEncoder(make(*arguments, **others))

    return make_with_rewards
