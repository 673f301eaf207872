"""Tiny random models of the recipes' architectures, with the real tokenizers of Llama 3 and Qwen.

The tokenizers' files come from the packages llama-models and dashscope; Qwen3 has Qwen2's. GLM-4's is in no package;
the embedded model's stands in for it, with GLM-4's special tokens.
"""

import importlib.util
import tempfile
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    Glm4Config,
    Glm4ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.convert_slow_tokenizer import TikTokenConverter

from lf_longpo.models.embedded import model_path

# How each splits text before byte-pair encoding, as their published tokenizer files say.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{number}|>" for number in range(2)),
    "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>",
]  # fmt: skip
_QWEN2_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_GLM4_SPECIAL = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def tiny_model(family: str, folder: Path, small_tokenizer: bool = False, most_byte_pairs: int | None = None) -> Path:
    """Saves a tiny random model of one family of recipes into `folder`, with its own or a very small tokenizer.

    Args:
        family: `llama3`, `qwen2`, `glm4`, `qwen3` or `glm4_0414`.
        folder: where to.
        small_tokenizer: for where only the architecture matters; the model trains in a fraction of the time.
        most_byte_pairs: how much of the family's own tokenizer to keep. With all of it, each process of a training
            run takes ten seconds to load tokenizer and embeddings.
    """
    kind, config = _ARCHITECTURES[family]
    tokenizer = _small_tokenizer() if small_tokenizer else _TOKENIZERS[family](most_byte_pairs)
    torch.manual_seed(0)
    sizes = _SIZES | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    model = kind(config(**sizes, pad_token_id=tokenizer.pad_token_id)).to(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _small_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and a few pairs of them, with ChatML's marks: training steps on it take milliseconds."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["lamp tower river stone light word north harbour seven blue"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _llama3(most: int | None) -> PreTrainedTokenizerFast:
    backend = _byte_pairs("llama_models", "llama3/tokenizer.model", "{1,3}", _LLAMA3_SPECIAL, most)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|eot_id|>"
    )


def _qwen2(most: int | None) -> PreTrainedTokenizerFast:
    backend = _byte_pairs("dashscope", "resources/qwen.tiktoken", "", _QWEN2_SPECIAL, most)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _glm4(most: int | None) -> PreTrainedTokenizerFast:
    """Whole in any case: the embedded model's is small."""
    tokenizer = AutoTokenizer.from_pretrained(model_path("smollm2-135m"))
    tokenizer.add_special_tokens({"additional_special_tokens": _GLM4_SPECIAL})
    tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    return tokenizer


def _byte_pairs(package: str, file: str, digits: str, special: list[str], most: int | None) -> Tokenizer:
    folder = importlib.util.find_spec(package).submodule_search_locations[0]
    pattern = _SPLIT.format(digits=digits)
    with tempfile.NamedTemporaryFile() as first:  # one byte pair a line, the most frequent first
        first.writelines((Path(folder) / file).read_bytes().splitlines(keepends=True)[:most])
        first.flush()
        return TikTokenConverter(first.name, pattern=pattern, extra_special_tokens=special).converted()


_TOKENIZERS = {"llama3": _llama3, "qwen2": _qwen2, "glm4": _glm4, "qwen3": _qwen2, "glm4_0414": _glm4}
_ARCHITECTURES = {
    "llama3": (LlamaForCausalLM, LlamaConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "glm4": (GlmForCausalLM, partial(GlmConfig, head_dim=8)),
    "qwen3": (Qwen3ForCausalLM, partial(Qwen3Config, head_dim=8)),
    "glm4_0414": (Glm4ForCausalLM, partial(Glm4Config, head_dim=8)),
}
