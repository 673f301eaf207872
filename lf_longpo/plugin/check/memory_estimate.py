"""How much memory one GPU needs at the peak of a step, part by part: of plain LLaMA-Factory and of `longpo train`.

With R rows of T tokens a step, c bytes a number of the compute type, L layers of width h with feed-forward width f, key
and value width k, V entries in the vocabulary, P parameters of which P_t are trained, and G GPUs. LLaMA-Factory makes
two rows of a pair, each with the prompt; `longpo train` one row of prompt and both responses. There all the time:

- weights: cP under DeepSpeed, else as wide as in the model's files, those that are trained 4 P_t; ZeRO-3 splits by G.
- optimizer: Adam's two moments 8 P_t, under DeepSpeed also the float32 weights 4 P_t; every ZeRO stage splits by G.
- reference model: as many bytes for full and freeze tuning, split under ZeRO-3; none for LoRA, whose adapter is
  switched off, and none for `longpo train`, which asks it beforehand.
- activations kept for the backward pass: the input of every layer, LRThc, with checkpointing (RThc where
  `use_unsloth_gc` keeps the others in the CPU's memory); without it LRT((10c + 8)h + 3ck + 4cf).
- attention mask: RT^2 (1 + c) where LLaMA-Factory pads rows and the kernel is PyTorch's: a boolean mask and the same in
  the compute type.

What comes and goes; the peak is the larger of two moments, the loss (logits) and the backward pass of a layer (layer at
work and gradients; gradients also at the loss where several batches accumulate or DeepSpeed holds them):

- logits: of LLaMA-Factory's DPO 20 RTV with a reference (float32 logits and log-softmax of the policy, then of the
  reference, whose shifted logits are copied), 12 RTV without; of its SFT 12 RTV (half precision: (12 + c)RTV), with
  liger's fused loss only a chunk of about cRTh. Of `longpo train`, with K response tokens, 8 KV (half precision:
  (8 + c)KV) and two tiles of at most 256 MiB.
- layer at work: RT((14c + 8)h + 4ck + 7cf), recomputed and with its gradients; `longpo train` works in tiles where
  the last part exceeds a fifth of the GPU.
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
# What CUDA, NCCL and the allocator's gaps take beside what is asked for.
_CONTEXT = 1.5 * GIB


class Machine(NamedTuple):
    """Where the run is to happen.

    Attributes:
        gpus: devices in all, over every node.
        memory: bytes of one.
        told: how that is known.
        here: whether it is this machine.
    """

    gpus: int
    memory: int
    told: str
    here: bool = False


@dataclass(frozen=True)
class Model:
    """A model's sizes, in numbers (not bytes).

    Attributes:
        parameters: all of them.
        trained: those that the optimizer changes.
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
    """Counts parameters on a model without memory behind it, so of any size in a moment."""
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
        parts: by part, see above.
        total: at the peak; less than all parts together, since not all are there at once.
    """

    parts: dict[str, float]
    total: float


class Rows(NamedTuple):
    """The longest step, in tokens.

    Attributes:
        count: rows.
        length: tokens of each.
        kept: of all of them, those whose logits are computed.
        masked: whether attention has a mask.
    """

    count: int
    length: int
    kept: int
    masked: bool


def stock_rows(longest: Lengths, run: Arguments) -> Rows:
    """What plain LLaMA-Factory makes of examples of the longest kind."""
    batch, pairs = run.training.per_device_train_batch_size, len(longest.responses) > 1
    length = -(-longest.total // 8) * 8  # collators pad to multiples of 8
    rows = batch * len(longest.responses)
    # One pair's responses are hardly ever of one length, and PyTorch's fast kernel knows no padding.
    return Rows(rows, length, rows * length, (pairs or batch > 1) and _attention(run) == "sdpa")


def packed_rows(longest: Lengths, run: Arguments) -> Rows:
    """What `longpo train` makes of them."""
    batch, responses = run.training.per_device_train_batch_size, sum(longest.responses)
    return Rows(batch, longest.prompt + responses, batch * responses, masked=False)


def estimate(
    model: Model, run: Arguments, zero: Zero | None, machine: Machine, rows: Rows, packed: bool = False
) -> Estimate:
    """The peak of a step.

    Args:
        model: sizes.
        run: the recipe.
        zero: DeepSpeed's splitting, None without DeepSpeed.
        machine: its GPUs share what is split; a part of one's memory is what `longpo train` gives a feed-forward block.
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
    inside = every * 7 * c * model.feed_forward
    if packed and not run.training.use_cpu:
        inside = min(inside, SHARE * machine.memory)
    layer = every * ((14 * c + 8) * model.hidden + 4 * c * model.key_value) + inside
    accumulates = zero is not None or run.training.gradient_accumulation_steps > 1
    peak = max(logits + accumulates * gradients, layer + gradients)
    parts = lasting | {"gradients": gradients, "logits": logits, "layer at work": layer}
    return Estimate(parts, sum(lasting.values()) + peak)


def _has_reference_model(run: Arguments) -> bool:
    """LoRA has none of its own: its adapter is switched off instead."""
    tuning = run.finetuning
    return tuning.use_ref_model and (tuning.ref_model is not None or tuning.finetuning_type != "lora")


def _attention(run: Arguments) -> str:
    """The kernel that `flash_attn` chooses; `auto` leaves it to transformers, which takes PyTorch's.

    `fa2` falls back to PyTorch's where flash-attn is missing; where there is no GPU to ask, it is taken at its word.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

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
