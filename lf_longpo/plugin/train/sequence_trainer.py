"""What sequence parallelism changes in transformers' trainer, which takes every process for one with its own data."""

from typing import TYPE_CHECKING, Any

from lf_longpo.plugin.compat import share_batches
from lf_longpo.plugin.train.sequence_exchange import SequenceGroup
from lf_longpo.plugin.train.sequence_parallel import RowSplitter

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, TrainingArguments

    Base = Trainer
else:
    Base = object


class SequenceParallelTrainer(Base):
    """Lets the processes of a group train on the same batches, each on its part of every row.

    DDP and ZeRO stay as they are: they average gradients over all processes, and `SequenceGroup.merged` scales them
    accordingly. Every process of a group computes the same loss, so averages over all processes stay right as well.

    Attributes:
        splitter: splits packed rows over the processes of a group; None where each process computes whole rows.
        parallel: P processes of a group.
    """

    splitter: RowSplitter | None = None
    parallel = 1

    def split_rows(self, parallel: int) -> None:
        """Splits rows over groups of so many processes; every process must call it at the same time."""
        if parallel == 1:
            return
        self.parallel = parallel
        model: Any = self.model
        self.splitter = RowSplitter(SequenceGroup(parallel), model.config.get_text_config().num_attention_heads)
        share_batches(self.accelerator, parallel)

    @property
    def groups(self) -> int:
        """Number of groups, each with batches of its own."""
        return self.accelerator.num_processes // self.parallel

    @property
    def is_first_of_group(self) -> bool:
        """Whether this process writes what the processes of its group know together."""
        return self.accelerator.process_index % self.parallel == 0

    def get_total_train_batch_size(self, args: "TrainingArguments") -> int:
        """Examples of a step."""
        return super().get_total_train_batch_size(args) // self.parallel

    def floating_point_ops(self, inputs: "dict[str, torch.Tensor | Any]") -> int:
        """Operations of a batch in this process; transformers sums them over all processes."""
        return super().floating_point_ops(inputs) // self.parallel
