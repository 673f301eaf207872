"""The in-process backend with a tiny random model (batches, seeds, sampling, adapters), and the embedded one."""

import asyncio
import time
from itertools import permutations

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from lf_longpo.config import ChatConfig, SamplingConfig
from lf_longpo.errors import CallFailed
from lf_longpo.models.batching import Batch, Waiting, choose_batch
from lf_longpo.models.chat import ChatRequest
from lf_longpo.models.embedded import model_path
from lf_longpo.models.kv_cache import PromptReader
from lf_longpo.models.tokenizers import chat_ids
from lf_longpo.models.transformers_chat import TransformersChat, _nucleus, _RowSampler, _Waiting


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=2, bos_token_id=1, pad_token_id=2, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def request(prompt, seed=1, **sampling):
    return ChatRequest(prompt, SamplingConfig(**({"max_new_tokens": 8, "presence_penalty": 0.0} | sampling)), seed)


async def answers(folder, requests, rows_alone=True, **config):
    """Without `rows_alone`, prompts are read as on a GPU, all rows of a batch at once."""
    chat = TransformersChat(ChatConfig(backend="transformers", model=str(folder), **config))
    try:
        assert await chat.start() == 512
        chat._model.float()  # bfloat16 rounds rows of a batch apart
        chat._reader = chat._reader if rows_alone else None
        return [completion.text for completion in await asyncio.gather(*map(chat.complete, requests))]
    finally:
        await chat.close()


@pytest.mark.slow
@pytest.mark.parametrize("rows_alone", [True, False])
async def test_a_row_is_answered_the_same_alone_and_in_any_batch(tiny, rows_alone):
    requests = [
        request(f"word {'and more ' * length}", seed=length, temperature=0.9, max_new_tokens=4 + 3 * length)
        for length in range(5)
    ]
    alone = [(await answers(tiny, [one]))[0] for one in requests]
    assert await answers(tiny, requests, rows_alone) == alone
    assert await answers(tiny, requests[::-1], rows_alone, max_concurrency=2) == alone[::-1]
    assert len(set(alone)) > 1


@pytest.mark.slow
async def test_replies_are_those_of_transformers_own_generation(tiny, tokenizer):
    """Greedy, so that nothing but the model decides: with rows of unequal lengths that end at different times."""
    model = LlamaForCausalLM.from_pretrained(tiny)
    prompts = [f"lamp {'and more ' * length}" for length in range(6)]
    expected = []
    for length, prompt in enumerate(prompts):
        ids = torch.tensor([chat_ids(prompt, tokenizer)])
        new = model.generate(ids, max_new_tokens=5 + 4 * length, do_sample=False)[0, ids.shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True))
    requests = [
        request(prompt, temperature=0.0, max_new_tokens=5 + 4 * length) for length, prompt in enumerate(prompts)
    ]
    assert await answers(tiny, requests) == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize("architecture", ["window", "state"])
async def test_rows_of_a_model_whose_cache_cannot_be_cut_stay_in_the_batch(tmp_path, tokenizer, architecture):
    """Layers with a sliding window or a state: rows end at different times, and none changes the others."""
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2}
    marks = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 2}
    torch.manual_seed(0)
    if architecture == "window":
        heads = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
        config = MistralConfig(**sizes, **heads, **marks, sliding_window=8, max_position_embeddings=512)
        model = MistralForCausalLM(config)
    else:
        config = MambaConfig(**sizes, **marks, state_size=8, max_position_embeddings=512)
        model = MambaForCausalLM(config)
    model.to(torch.float32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompts = [f"lamp {'and more ' * length}" for length in range(4)]
    requests = [request(prompt, temperature=0.0, max_new_tokens=3 + length) for length, prompt in enumerate(prompts)]
    expected = []
    for prompt, asked in zip(prompts, requests, strict=True):
        ids = torch.tensor([chat_ids(prompt, tokenizer)])
        new = model.eval().generate(ids, max_new_tokens=asked.sampling.max_new_tokens, do_sample=False)
        expected.append(tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True))
    assert len(set(expected)) == 4
    sizes = []
    chat = TransformersChat(ChatConfig(backend="transformers", model=str(tmp_path)))
    await chat.start()
    chat._model.float()
    generate = chat._model.generate
    chat._model.generate = lambda **given: sizes.append(len(given["input_ids"])) or generate(**given)
    completions = await asyncio.gather(*map(chat.complete, requests))
    await chat.close()
    assert sizes == [4]  # one call: with a cache that can be cut, rows would be taken out after the second reply
    assert [completion.completion_tokens for completion in completions] == [3, 4, 5, 6]
    assert [completion.text for completion in completions] == expected


@pytest.mark.slow
async def test_a_beginning_that_rows_share_is_read_once_and_changes_nothing(tiny, monkeypatch):
    text = "the lamp hangs in the tower " * 20
    requests = [request(text + f"word {'more ' * row}", seed=row, temperature=0.9) for row in range(3)]
    requests += [request(text + "word ", seed=9, temperature=0.9), request("another", seed=3)]
    alone = [(await answers(tiny, [one]))[0] for one in requests]
    batches, lengths = [], []
    at_once, row_by_row = TransformersChat._read, PromptReader._read
    monkeypatch.setattr(
        TransformersChat,
        "_read",
        lambda self, ids, rows: batches.append((ids.shape[1], rows)) or at_once(self, ids, rows),
    )

    def read(self, ids, beginning):
        known = beginning[0][0].shape[2] if beginning else 0
        lengths.append(len(ids) - known)
        return row_by_row(self, ids, beginning)

    monkeypatch.setattr(PromptReader, "_read", read)
    assert await answers(tiny, requests, rows_alone=False) == alone
    ((length, rows),) = batches
    assert rows == 4 and length > 100 and not lengths
    assert await answers(tiny, requests) == alone
    # The beginning, what each of its four rows has of its own (two are the same prompt), and the other request.
    assert [read for read in lengths if read > 100] == [length] and len(lengths) == 1 + 3 + 1


async def test_a_prompt_that_comes_again_is_not_read_again(tiny, monkeypatch):
    reads = []
    row_by_row = PromptReader._read
    monkeypatch.setattr(
        PromptReader, "_read", lambda self, *given: reads.append(len(given[0])) or row_by_row(self, *given)
    )
    chat = TransformersChat(ChatConfig(backend="transformers", model=str(tiny)))
    await chat.start()
    first = await chat.complete(request("the lamp hangs", seed=1, temperature=0.9))
    again = await chat.complete(request("the lamp hangs", seed=1, temperature=0.9))
    await chat.close()
    assert first.text == again.text and len(reads) == 1


def test_batches_share_beginnings_then_go_by_length():
    def waiting(*parts, limit=8):
        return Waiting(np.concatenate([np.full(size, value, np.int32) for value, size in parts]), limit)

    long = waiting((1, 100), (2, 5))
    others = [
        waiting((3, 104)),
        waiting((1, 100), (4, 9)),
        waiting((1, 60), (5, 9)),
        waiting((1, 100), (6, 2), limit=64),
    ]
    assert choose_batch([long, *others], 8, 1000, 1000) == Batch([0, 2], 100)  # 60 is less than it takes
    assert choose_batch([long, others[1]], 8, 1000, 1000) == Batch([0, 1], 100)
    assert choose_batch([long, *[long] * 9], 8, 120, 10_000) == Batch(list(range(8)), 104)
    assert choose_batch([long, *[long] * 9], 8, 120, 320) == Batch([0, 1, 2], 104)
    assert choose_batch([long, others[0]], 8, 1000, 1000) == Batch([0, 1], 0)
    assert choose_batch([long, others[0]], 8, 10, 10) == Batch([0], 0)


def test_a_beginning_that_the_model_cannot_share_counts_for_each_row():
    """Sixteen samples of a prompt of 4,000 tokens are 64,000 tokens to read."""
    samples = [Waiting(np.ones(4000, np.int32), 8)] * 16
    assert choose_batch(samples, 16, 4_096, 65_536) == Batch(list(range(16)), 3999)
    assert choose_batch(samples, 16, 4_096, 65_536, shares=False) == Batch([0], 0)
    assert choose_batch(samples, 16, 16_000, 65_536, shares=False) == Batch([0, 1, 2, 3], 0)


@pytest.mark.parametrize("words", ["CUDA out of memory. Tried to allocate 2 GiB", "can't allocate memory: you tried"])
async def test_a_memory_shortage_halves_the_batch_and_loses_nothing(tiny, monkeypatch, words):
    sizes, plain = [], TransformersChat._generate

    def generate(self, batch, shared):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError(words)
        return plain(self, batch, shared)

    monkeypatch.setattr(TransformersChat, "_generate", generate)
    found = await answers(tiny, [request("word", seed=seed, temperature=1.0) for seed in range(8)])
    assert len(found) == 8 and sizes[:3] == [8, 4, 2] and max(sizes[2:]) == 2 and sum(sizes[2:]) == 8


async def test_a_row_that_does_not_fit_alone_is_lost_and_the_next_is_answered(tiny, monkeypatch):
    plain = TransformersChat._generate

    def generate(self, batch, shared):
        if any("huge" in waiting.request.prompt for waiting in batch):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, batch, shared)

    monkeypatch.setattr(TransformersChat, "_generate", generate)
    chat = TransformersChat(ChatConfig(backend="transformers", model=str(tiny)))
    await chat.start()
    asked = [request("huge"), request("word"), request("more")]
    told = await asyncio.gather(*map(chat.complete, asked), return_exceptions=True)
    await chat.close()
    assert isinstance(told[0], CallFailed) and "out of memory" in str(told[0])
    assert [completion.completion_tokens for completion in told[1:]] == [8, 8]


async def test_seeds_differ_and_greedy_does_not(tiny):
    drawn = await answers(tiny, [request("same", seed=seed, temperature=1.0) for seed in range(4)])
    greedy = await answers(tiny, [request("same", seed=seed, temperature=0.0) for seed in range(4)])
    assert len(set(drawn)) == 4 and len(set(greedy)) == 1


async def test_each_row_keeps_its_own_length(tiny):
    chat = TransformersChat(ChatConfig(backend="transformers", model=str(tiny)))
    await chat.start()
    short, long = await asyncio.gather(
        chat.complete(request("x", max_new_tokens=3)), chat.complete(request("x", max_new_tokens=9))
    )
    await chat.close()
    assert (short.completion_tokens, long.completion_tokens) == (3, 9)
    assert short.finish_reason == long.finish_reason == "length"


def test_sampling_follows_the_distribution():
    """Gumbel-max draws within top-p: the frequencies are the renormalised probabilities."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    sampler = _RowSampler([request("", seed=7, temperature=1.0, top_p=0.9)], 0, "cpu")
    draws = torch.stack([sampler(torch.zeros(1, 0, dtype=torch.long), probabilities.log()[None]) for _ in range(4000)])
    shares = torch.bincount(draws.argmax(-1).flatten(), minlength=4) / 4000
    assert shares[3] == 0
    assert torch.allclose(shares[:3], probabilities[:3] / 0.95, atol=0.03)


def test_nucleus_is_exact_also_where_many_tokens_are_needed():
    flat = torch.log_softmax(torch.zeros(1, 2000), -1)
    assert _nucleus(flat, torch.tensor([[0.50025]])).isfinite().sum() == 1001
    peaked = torch.log(torch.tensor([[0.6, 0.3, 0.1]]))
    assert _nucleus(peaked, torch.tensor([[0.6]])).isfinite().tolist() == [[True, False, False]]
    assert _nucleus(peaked, torch.tensor([[1.0]])).isfinite().all()


def test_presence_penalty_counts_each_token_of_the_output_once():
    sampler = _RowSampler([request("", temperature=0.0, presence_penalty=2.0)], 2, "cpu")
    scores = sampler(torch.tensor([[5, 5, 1, 1, 3]]), torch.zeros(1, 6))
    assert scores.tolist() == [[0, -2, 0, -2, 0, 0]]  # the prompt's tokens are not penalised


async def test_an_adapter_changes_the_answers(tiny, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(LlamaForCausalLM.from_pretrained(tiny), LoraConfig(target_modules="all-linear"))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(tmp_path)
    one = [request("word", temperature=0.0)]
    assert await answers(tiny, one, adapter=str(tmp_path)) != await answers(tiny, one)


@pytest.mark.slow
async def test_the_embedded_model_answers():
    chat = TransformersChat(ChatConfig(backend="transformers", model="smollm2-135m"))
    assert await chat.start() == 8192
    completion = await chat.complete(request("What is the capital of France?", temperature=0.0, max_new_tokens=16))
    await chat.close()
    assert "Paris" in completion.text and completion.finish_reason == "stop"


def test_the_embedded_tokenizer_is_a_byte_level_bpe(tokenizer):
    text = "Two\n\nlines, 123 和 é"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("<|im_start|>user\n")["input_ids"][0] == 1
    assert model_path("minilm").joinpath("model.safetensors").is_file()


async def test_what_goes_together_follows_from_what_is_asked_not_from_who_came_first():
    chat = TransformersChat(ChatConfig(backend="transformers", model="smollm2-135m", max_concurrency=8))

    def waiting(prompt, seed, since):
        request = ChatRequest(prompt, SamplingConfig(), seed)
        done = asyncio.get_running_loop().create_future()
        return _Waiting(request, np.array([1], dtype=np.int32), since, "", done)

    asked = [waiting("b", 7, 0), waiting("c", 3, 1), waiting("a", 7, 0), waiting("d", 9, 0)]
    orders = set()
    for arrivals in permutations(asked):
        chat._waiting = list(arrivals)
        await chat._gather()
        orders.add(tuple(one.request.prompt for one in chat._waiting))
    assert orders == {("a", "b", "d", "c")}  # who has waited longer first


async def test_models_that_are_started_at_once_are_loaded_one_after_the_other(monkeypatch):
    """transformers mixes up two loads in two threads."""
    loading, most = [], []

    def load(self):
        loading.append(self)
        time.sleep(0.05)
        most.append(len(loading))
        loading.remove(self)
        self._model = LlamaForCausalLM(LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))

    monkeypatch.setattr(TransformersChat, "_load", load)
    chats = [TransformersChat(ChatConfig(backend="transformers", model="smollm2-135m")) for _ in range(3)]
    await asyncio.gather(*(chat.start() for chat in chats))
    await asyncio.gather(*(chat.close() for chat in chats))
    assert most == [1, 1, 1]
