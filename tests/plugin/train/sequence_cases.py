"""Run in each of several gloo processes: values and gradients of rows split over groups equal those of whole rows.

    main(RANK, PROCESSES, STORE)

Every process computes both, in float64, and compares them.
"""

import sys
from contextlib import contextmanager

import torch
import torch.distributed as dist
from llamafactory.model.model_utils import checkpointing
from transformers import (
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lf_longpo.plugin.train.attention import use_packed_attention
from lf_longpo.plugin.train.packed_forward import token_values
from lf_longpo.plugin.train.packing import IGNORE, pack
from lf_longpo.plugin.train.sequence_exchange import SequenceGroup
from lf_longpo.plugin.train.sequence_parallel import Exchange, RowSplitter

LLAMA, QWEN2 = (LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)
QWEN3, GLM = (Qwen3ForCausalLM, Qwen3Config), (GlmForCausalLM, GlmConfig)
PAIR = [(13, 6, 3)]
MODELS = {  # architecture, query heads, key-value heads
    "one key-value head a process, or shared by two": (LLAMA, 4, 2),
    "as many key-value heads as queries": (QWEN3, 4, 4),
    "one key-value head": (GLM, 8, 1),
    "key-value heads shared in part by two processes": (LLAMA, 12, 6),
    "four processes do not divide the heads": (QWEN2, 6, 2),
    "no number of processes divides the heads": (QWEN2, 7, 1),
}
ROWS = {  # for each example: tokens of the prompt, of the chosen and of the rejected response
    "a pair of 22 tokens": PAIR,
    "two pairs": [(9, 4, 7), (21, 2, 3)],
    "slices without responses": [(61, 2, 1)],
    "responses in each slice": [(1, 30, 20)],
    "one response": [(8, 5)],
    "no prompt in common": [(0, 7, 9)],
    "four responses": [(10, 3, 1, 6, 2)],
}


def batch_of(examples, vocabulary):
    """Random tokens; each response is in the loss, and so is nothing of a prompt."""
    chance = torch.Generator().manual_seed(sum(map(sum, examples)))

    def tokens(number):
        return torch.randint(3, vocabulary, (number,), generator=chance).tolist()

    packed = []
    for prompt, *responses in examples:
        shared = tokens(prompt)
        branches = [tokens(length) for length in responses]
        for number, branch in enumerate(branches):
            branch[0] = number  # so that the responses differ from their first token
        packed.append([(shared + branch, [IGNORE] * prompt + branch) for branch in branches])
    return pack(packed)


def model_of(architecture, heads, key_heads):
    kind, config = architecture
    torch.manual_seed(0)
    sizes = {"vocab_size": 31, "hidden_size": 8 * heads, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": heads, "num_key_value_heads": key_heads, "head_dim": 8}
    model = kind(config(**sizes, **heads, max_position_embeddings=128, pad_token_id=None)).double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that what a token sees matters
    use_packed_attention(model)
    return model


def gradients(model, batch, splitter):
    """Values and gradients of a loss that weighs every token differently."""
    model.zero_grad()
    values = token_values(model, batch, splitter)
    weights = torch.linspace(0.5, 2, len(values.logps), dtype=torch.float64)
    (values.logps * weights).sum().square().backward()
    return values, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def check(name, model, batch, splitter, processes):
    whole, expected = gradients(model, batch, None)
    splitter.group.sent = 0
    parts, found = gradients(model, batch, splitter)
    torch.testing.assert_close(parts.logps, whole.logps, rtol=1e-10, atol=1e-10, msg=lambda text: f"{name}: {text}")
    torch.testing.assert_close(parts.means, whole.means, rtol=1e-5, atol=1e-5)
    for parameter, gradient in found.items():
        dist.all_reduce(gradient)  # DDP: the mean over all processes, which all got the same batch here
        difference = (gradient / processes - expected[parameter]).norm() / expected[parameter].norm()
        assert difference < 1e-10, (name, parameter, difference)
    size = splitter.group.size
    config, tokens = model.config, splitter.split(batch).inputs["input_ids"].shape[1]
    layer = Exchange(config.num_attention_heads, config.num_key_value_heads, 8, 8).layer_bytes(tokens, size)
    passes = 3 if model.is_gradient_checkpointing else 2
    merged = 2 * 2 * len(batch["targets"]) * 8 * (size - 1) // size
    assert splitter.group.sent == passes * config.num_hidden_layers * layer + merged, name


@contextmanager
def checkpoints_in_the_cpus_memory(model):
    """LLaMA-Factory's `use_unsloth_gc`, which brings them back to "cuda": the CPU here."""
    to = torch.Tensor.to

    def here(tensor, *arguments, **options):
        return to(tensor, *(("cpu",) if arguments == ("cuda",) else arguments), **options)

    checkpointing._gradient_checkpointing_enable(model, use_unsloth_gc=True)
    torch.Tensor.to = here
    try:
        yield
    finally:
        torch.Tensor.to = to


def main(rank, processes, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    torch.set_num_threads(1)
    groups = [SequenceGroup(size) for size in range(2, processes + 1) if processes % size == 0]
    for label, (architecture, heads, key_heads) in MODELS.items():
        model = model_of(architecture, heads, key_heads)
        for group in groups:
            for row, examples in ROWS.items():
                name = f"{label}, {row}, P = {group.size}"
                check(name, model, batch_of(examples, 31), RowSplitter(group, heads), processes)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    for group in groups:
        check(f"checkpoints, P = {group.size}", model, batch_of(PAIR, 31), RowSplitter(group, heads), processes)
    with checkpoints_in_the_cpus_memory(model):
        check("checkpoints elsewhere", model, batch_of(PAIR, 31), RowSplitter(groups[0], heads), processes)
    print(f"process {rank}: all equal")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
