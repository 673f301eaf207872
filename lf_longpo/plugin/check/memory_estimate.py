"""The memory that one GPU needs at the peak of a step, part by part: for plain LLaMA-Factory and for `longpo train`.

A step has R rows of T tokens; a number of the compute type has c bytes; the model has L layers of width h, feed-forward
width f, key and value width k, a vocabulary of V entries and P parameters, P_t of them trained; there are G GPUs.
LLaMA-Factory makes two rows of a pair, each with the prompt; `longpo train` makes one row of the prompt and the
responses of all its pairs, and may split it over N processes, so that RT becomes RT/N. Parts that exist all the time:

- weights: cP under DeepSpeed, else as wide as in the model's files; trained ones 4 P_t; ZeRO-3 splits by G. FSDP splits
  4P by G (accelerate converts all but quantised weights to float32) and gathers two layers and the embeddings in c.
- optimizer: Adam's two moments 8 P_t, under DeepSpeed also the float32 weights 4 P_t; every ZeRO stage splits by G.
- reference model: the bytes of the weights for full and freeze tuning, split under ZeRO-3; none for LoRA, which
  switches its adapter off; none for `longpo train`, which computes the references before the first step.
- activations kept for the backward pass: the input of every layer, LRThc, with checkpointing. Where `use_unsloth_gc`
  keeps them in the CPU's memory, RThc, and 3RThc in `longpo train`, which copies while the GPU computes. Without
  checkpointing LRT((10c + 8)h + 3ck + 4cf).
- attention mask: RT^2 (1 + c) where LLaMA-Factory pads rows and the kernel is PyTorch's: a boolean mask and a copy of
  it in the compute type.

Parts that exist for a moment. The peak is the larger of two moments: the loss (logits) and the backward pass of a layer
(layer at work and gradients; gradients also at the loss if several batches accumulate or DeepSpeed is used):

- logits: of LLaMA-Factory's DPO 20 RTV with a reference (float32 logits and log-softmax of the policy, then of the
  reference, whose shifted logits are copied), 12 RTV without; of its SFT 12 RTV (half precision: (12 + c)RTV), with
  liger's fused loss only a chunk of about cRTh. Of `longpo train`, with K response tokens, 8 KV (half precision:
  (8 + c)KV) and two tiles of at most 256 MiB.
- layer at work: RT((4c + 28)h + 4ck + (4c + 6)f), recomputed and with its gradients. Where this exceeds a fifth of
  the GPU, `longpo train` computes all but attention in tiles; what remains for the whole row, with queries of width a,
  is the layer's input and result, query, key, value, attention's result, and their gradients: RTc(4h + 7a + 10k).
  FlashAttention's backward pass on a GPU adds 4RTa for sums in float32, and 2RTca where query heads share keys.
- exchange: where a row is split over N processes, RTc(3a + 4k)/N if N divides the query heads; without tiles, only
  what exceeds the share of the feed-forward block, which is free by then. Else keys and values of all rows, 8RTck.
- gradients: 4 P_t (c P_t under DeepSpeed); ZeRO-2 and -3 and FSDP split by G.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.plugin.check.deepspeed import Zero
from lf_longpo.plugin.check.examples import Lengths
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.train.logps import TILE
from lf_longpo.plugin.train.tiling import WHOLE, bytes_at_work, tiles_for

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
        attention: width of all queries of a token.
        key_value: width of all keys of a token.
        heads: query heads.
        vocabulary: rows of the language-model head.
        stored: bytes of a number in the model's files; LLaMA-Factory loads weights as they are there.
        compute: bytes of a number that is computed with.
    """

    parameters: int
    trained: int
    layers: int
    hidden: int
    feed_forward: int
    attention: int
    key_value: int
    heads: int
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
        attention=head_dim * text.num_attention_heads,
        key_value=head_dim * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
        heads=text.num_attention_heads,
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


def packed_rows(longest: Lengths, batch: int) -> Rows:
    """The rows of `longpo train` for a batch of prompts of this length, each with responses of these lengths."""
    responses = sum(longest.responses)
    return Rows(batch, longest.prompt + responses, batch * responses, masked=False)


def longest_step(steps: Iterable[Rows]) -> Rows:
    """The step with the most tokens."""
    return max(steps, key=lambda rows: rows.count * rows.length)


def estimate(
    model: Model,
    run: Arguments,
    zero: Zero | None,
    machine: Machine,
    rows: Rows,
    packed: bool = False,
    parallel: int = 1,
) -> Estimate:
    """Estimates the peak of a step.

    Args:
        model: sizes.
        run: the recipe.
        zero: DeepSpeed's or FSDP's splitting; None without them.
        machine: its GPUs share what is split; `longpo train` limits a layer to a share of one's memory.
        rows: the longest step.
        packed: whether `longpo train` runs it.
        parallel: number of processes over which `longpo train` splits each row.
    """
    c, on_cpu = model.compute, run.training.use_cpu
    every = -(-rows.count * rows.length // parallel)
    states = _States(model, run, zero, machine.gpus)
    lasting = {
        "weights": states.weights(),
        "optimizer": states.optimizer(),
        "reference model": states.reference() if _has_reference_model(run) and not packed else 0,
        "activations": every * _kept(model, run, packed),
        "attention mask": rows.count * rows.length**2 * (1 + c) if rows.masked else 0,
        "CUDA context": 0 if on_cpu else _CONTEXT,
    }
    # The responses may all be in the part of one process.
    kept = min(rows.kept, every)
    logits = _packed_logits(model, kept, c) if packed else _logits(model, run, every, c)
    at_work = bytes_at_work(model.hidden, model.key_value, model.feed_forward, c)
    tiles = WHOLE if on_cpu else tiles_for(at_work, machine.memory)
    layer, exchange = float(every * at_work), float(every * _exchanged(model, parallel))
    if packed and every > tiles.longest:
        layer = float(every * _untiled(model, on_cpu) + tiles.size * at_work)
    elif model.heads % parallel == 0:
        exchange = max(0.0, exchange - every * bytes_at_work(0, 0, model.feed_forward, c))
    gradients = states.gradients()
    accumulates = zero is not None or run.training.gradient_accumulation_steps > 1
    peak = max(logits + accumulates * gradients, layer + exchange + gradients)
    parts = lasting | {"gradients": gradients, "logits": logits, "layer at work": layer, "exchange": exchange}
    return Estimate(parts, sum(lasting.values()) + peak)


class _States(NamedTuple):
    """Bytes on one GPU of what does not grow with the rows."""

    model: Model
    run: Arguments
    zero: Zero | None
    gpus: int

    def weights(self) -> float:
        model, zero = self.model, self.zero
        frozen = model.parameters - (0 if self.run.finetuning.finetuning_type == "lora" else model.trained)
        trained = model.compute if zero and not zero.fsdp else 4
        size = self._split(self._stored(frozen) + trained * model.trained, 3)
        if zero and zero.weights_on_cpu:
            size = 0
        # Two layers are gathered at a time, the next one while one computes; the embeddings stay gathered.
        gathered = 2 * model.parameters / model.layers + 2 * model.vocabulary * model.hidden
        return size + (model.compute * gathered if zero and zero.fsdp else 0)

    def optimizer(self) -> float:
        zero = self.zero
        if zero and zero.optimizer_on_cpu:
            return 0
        return self._split((12 if zero and not zero.fsdp else 8) * self.model.trained, 1)

    def gradients(self) -> float:
        zero = self.zero
        return self._split((self.model.compute if zero and not zero.fsdp else 4) * self.model.trained, 2)

    def reference(self) -> float:
        return self._split(self._stored(self.model.parameters), 3)

    def _stored(self, parameters: int) -> float:
        """Bytes of frozen weights; embeddings are not quantised."""
        model, zero = self.model, self.zero
        width = float(model.compute if zero else model.stored)
        bits = self.run.model.quantization_bit
        if bits in (4, 8):
            embeddings = min(parameters, 2 * model.vocabulary * model.hidden)
            return width * embeddings + bits / 8 * (parameters - embeddings)
        return (4.0 if zero and zero.fsdp else width) * parameters

    def _split(self, size: float, least_stage: int) -> float:
        stage = self.zero.stage if self.zero else 0
        return size / self.gpus if stage >= least_stage else size


def _kept(model: Model, run: Arguments, packed: bool) -> int:
    """Bytes of a token that are kept for the backward pass."""
    c = model.compute
    if run.model.disable_gradient_checkpointing:
        inside = (10 * c + 8) * model.hidden + 3 * c * model.key_value + 4 * c * model.feed_forward
        return model.layers * inside
    offloaded = run.model.use_unsloth_gc and not run.training.use_cpu
    layers = (3 if packed else 1) if offloaded else model.layers
    return min(layers, model.layers) * model.hidden * c


def _untiled(model: Model, on_cpu: bool) -> int:
    """Bytes of a token in a layer that are kept for the whole row where the rest is tiled."""
    c, width = model.compute, model.attention
    size = c * (4 * model.hidden + 7 * width + 10 * model.key_value)
    if on_cpu:
        return size
    return size + 4 * width + (2 * c * width if model.key_value < width else 0)


def _exchanged(model: Model, parallel: int) -> int:
    """Bytes of a token for the exchange around attention, where each row is split over `parallel` processes."""
    if parallel == 1:
        return 0
    if model.heads % parallel:
        return 8 * model.compute * model.key_value * parallel
    shared = model.attention // model.key_value
    repeats = shared // gcd(model.heads // parallel, shared)
    return model.compute * (3 * model.attention + 4 * model.key_value * repeats)


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


def _packed_logits(model: Model, kept: int, c: int) -> float:
    numbers = kept * model.vocabulary
    return (8 if c == 4 else 8 + c) * numbers + 2 * 4 * min(numbers, TILE)
