"""The memory that one GPU needs at the peak of a step, part by part: for plain LLaMA-Factory and for `longpo train`.

A step has R rows of T tokens; a number of the compute type has c bytes; the model has L layers of width h, feed-forward
width f, key and value width k, a vocabulary of V entries and P parameters, P_t of them trained; there are G GPUs.
LLaMA-Factory makes two rows of a pair, each with the prompt; `longpo train` makes one row of the prompt and the
responses of all its pairs. Parts that exist all the time:

- weights: cP under DeepSpeed, else as wide as in the model's files; trained ones 4 P_t; ZeRO-3 splits by G.
- optimizer: Adam's two moments 8 P_t, under DeepSpeed also the float32 weights 4 P_t; every ZeRO stage splits by G.
- reference model: the bytes of the weights for full and freeze tuning, split under ZeRO-3; none for LoRA, which
  switches its adapter off; none for `longpo train`, which computes the references before the first step.
- activations kept for the backward pass: the input of every layer, LRThc, with checkpointing (RThc where
  `use_unsloth_gc` keeps the others in the CPU's memory); without it LRT((10c + 8)h + 3ck + 4cf).
- attention mask: RT^2 (1 + c) where LLaMA-Factory pads rows and the kernel is PyTorch's: a boolean mask and a copy of
  it in the compute type.

Parts that exist for a moment. The peak is the larger of two moments: the loss (logits) and the backward pass of a layer
(layer at work and gradients; gradients also at the loss if several batches accumulate or DeepSpeed is used):

- logits: of LLaMA-Factory's DPO 20 RTV with a reference (float32 logits and log-softmax of the policy, then of the
  reference, whose shifted logits are copied), 12 RTV without; of its SFT 12 RTV (half precision: (12 + c)RTV), with
  liger's fused loss only a chunk of about cRTh. Of `longpo train`, with K response tokens, 8 KV (half precision:
  (8 + c)KV) and two tiles of at most 256 MiB.
- layer at work: RT((14c + 8)h + 4ck + 7cf), recomputed and with its gradients; `longpo train` computes in tiles where
  the last term exceeds a fifth of the GPU.
- gradients: 4 P_t (c P_t under DeepSpeed); ZeRO-2 and -3 split by G.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.plugin.check.deepspeed import Zero
from lf_longpo.plugin.check.examples import Lengths
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.train.logps import TILE
from lf_longpo.plugin.train.tiling import SHARE

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 1 << 30
# Memory of CUDA, NCCL and the allocator's gaps.
_CONTEXT = 1.5 * GIB


class Machine(NamedTuple):
    """The devices of a run.

    Attributes:
        gpus: number of devices on all nodes.
        memory: bytes of one device.
        source: where these values come from.
        here: whether it is this machine.
    """

    gpus: int
    memory: int
    source: str
    here: bool = False


@dataclass(frozen=True)
class Model:
    """A model's sizes, in numbers (not bytes).

    Attributes:
        parameters: number of parameters.
        trained: number of parameters that the optimizer changes.
        layers: decoder layers.
        hidden: width of the residual stream.
        feed_forward: width inside the MLP.
        key_value: width of all keys of a token.
        vocabulary: rows of the language-model head.
        stored: bytes of a number in the model's files; LLaMA-Factory loads weights as they are there.
        compute: bytes of a number that is computed with.
    """

    parameters: int
    trained: int
    layers: int
    hidden: int
    feed_forward: int
    key_value: int
    vocabulary: int
    stored: int
    compute: int


def measure_model(config: "PretrainedConfig", run: Arguments) -> Model:
    """Counts parameters on the meta device, which allocates no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=run.model.trust_remote_code)
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Model(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=_trained(model, run),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        feed_forward=text.intermediate_size,
        key_value=head_dim * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
        vocabulary=text.vocab_size,
        stored=(getattr(config, "dtype", None) or torch.float32).itemsize,
        compute=(run.model.compute_dtype or torch.float32).itemsize,
    )


def _trained(model: Any, run: Arguments) -> int:
    import torch

    tuning = run.finetuning
    if tuning.finetuning_type == "full":
        return sum(parameter.numel() for parameter in model.parameters())
    if tuning.finetuning_type == "lora":
        everything = tuning.lora_target == ["all"]
        return sum(
            tuning.lora_rank * (module.in_features + module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and (name.split(".")[-1] != "lm_head" if everything else name.split(".")[-1] in tuning.lora_target)
        )
    layers = model.config.get_text_config().num_hidden_layers
    share = min(abs(tuning.freeze_trainable_layers), layers) / layers
    return int(share * sum(parameter.numel() for name, parameter in model.named_parameters() if ".layers." in name))


class Estimate(NamedTuple):
    """Bytes on one GPU.

    Attributes:
        parts: by part, see the module.
        total: at the peak; less than the sum of the parts, since not all exist at the same time.
    """

    parts: dict[str, float]
    total: float


@dataclass(frozen=True)
class Rows:
    """The rows of the longest step.

    Attributes:
        count: number of rows.
        length: tokens of each row.
        kept: number of tokens in all rows with computed logits.
        masked: whether attention has a mask.
    """

    count: int
    length: int
    kept: int
    masked: bool


def stock_rows(longest: Lengths, run: Arguments) -> Rows:
    """The rows of plain LLaMA-Factory for a batch of examples of these lengths."""
    batch, pairs = run.training.per_device_train_batch_size, len(longest.responses) > 1
    length = -(-longest.total // 8) * 8  # collators pad to multiples of 8
    rows = batch * len(longest.responses)
    # The responses of a pair rarely have the same length, and PyTorch's fast kernel does not support padding.
    return Rows(rows, length, rows * length, (pairs or batch > 1) and _attention(run) == "sdpa")


def packed_rows(longest: Lengths, run: Arguments, batch: int | None = None) -> Rows:
    """The rows of `longpo train` for a batch of examples of these lengths; `batch` replaces the recipe's."""
    batch, responses = batch or run.training.per_device_train_batch_size, sum(longest.responses)
    return Rows(batch, longest.prompt + responses, batch * responses, masked=False)


def estimate(
    model: Model, run: Arguments, zero: Zero | None, machine: Machine, rows: Rows, packed: bool = False
) -> Estimate:
    """Estimates the peak of a step.

    Args:
        model: sizes.
        run: the recipe.
        zero: DeepSpeed's splitting; None without DeepSpeed.
        machine: its GPUs share what is split; `longpo train` limits a feed-forward block to a share of one's memory.
        rows: the longest step.
        packed: whether `longpo train` runs it.
    """
    c = model.compute
    every = rows.count * rows.length
    stage = zero.stage if zero else 0

    def split(size: float, least_stage: int) -> float:
        return size / machine.gpus if stage >= least_stage else size

    stored = {4: 0.5, 8: 1.0}.get(run.model.quantization_bit, float(c if zero else model.stored))
    frozen = model.parameters - (0 if run.finetuning.finetuning_type == "lora" else model.trained)
    weights = stored * frozen + (c if zero else 4) * model.trained
    kept = every * (1 if run.model.use_unsloth_gc else model.layers) * model.hidden * c
    if run.model.disable_gradient_checkpointing:
        kept = (10 * c + 8) * model.hidden + 3 * c * model.key_value + 4 * c * model.feed_forward
        kept *= every * model.layers
    lasting = {
        "weights": 0 if zero and zero.weights_on_cpu else split(weights, 3),
        "optimizer": 0 if zero and zero.optimizer_on_cpu else split((12 if zero else 8) * model.trained, 1),
        "reference model": split(stored * model.parameters, 3) if _has_reference_model(run) and not packed else 0,
        "activations": kept,
        "attention mask": rows.count * rows.length**2 * (1 + c) if rows.masked else 0,
        "CUDA context": 0 if run.training.use_cpu else _CONTEXT,
    }
    gradients = split((c if zero else 4) * model.trained, 2)
    logits = _packed_logits(model, rows, c) if packed else _logits(model, run, every, c)
    inside = float(every * 7 * c * model.feed_forward)
    if packed and not run.training.use_cpu:
        inside = min(inside, SHARE * machine.memory)
    layer = every * ((14 * c + 8) * model.hidden + 4 * c * model.key_value) + inside
    accumulates = zero is not None or run.training.gradient_accumulation_steps > 1
    peak = max(logits + accumulates * gradients, layer + gradients)
    parts = lasting | {"gradients": gradients, "logits": logits, "layer at work": layer}
    return Estimate(parts, sum(lasting.values()) + peak)


def _has_reference_model(run: Arguments) -> bool:
    """LoRA has no separate reference model: it switches its adapter off."""
    tuning = run.finetuning
    return tuning.use_ref_model and (tuning.ref_model is not None or tuning.finetuning_type != "lora")


def _attention(run: Arguments) -> str:
    """The kernel that `flash_attn` selects. With `auto`, transformers selects PyTorch's.

    `fa2` falls back to PyTorch's if flash-attn is missing. On a machine without GPU it is assumed to be available.
    """
    import torch
    from transformers.utils.import_utils import is_flash_attn_2_available

    named = str(getattr(run.model.flash_attn, "value", run.model.flash_attn))
    missing = run.training.use_cpu or (torch.cuda.is_available() and not is_flash_attn_2_available())
    return "sdpa" if named == "auto" or (named == "fa2" and missing) else named


def _logits(model: Model, run: Arguments, every: int, c: int) -> float:
    if run.data_stage == "rm":
        return (20 if run.finetuning.use_ref_model else 12) * every * model.vocabulary
    if run.model.enable_liger_kernel:
        return c * every * model.hidden
    return (12 if c == 4 else 12 + c) * every * model.vocabulary


def _packed_logits(model: Model, rows: Rows, c: int) -> float:
    numbers = rows.kept * model.vocabulary
    return (8 if c == 4 else 8 + c) * numbers + 2 * 4 * min(numbers, TILE)
