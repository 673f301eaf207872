"""Checks the client against a real vLLM server: what it sends is in the prompt, a run ends well, mistakes are named.

The test suite has no vLLM, so run this by hand after a change of the client or with a new version of vLLM. The model is
tiny and random; its chat template renders the thinking marks only with `enable_thinking: false`, as Qwen3's does.

    python scripts/check_vllm.py make /tmp/tiny       # writes the model
    vllm serve /tmp/tiny --served-model-name tiny --dtype float32 --enforce-eager --port 8000
    python scripts/check_vllm.py check /tmp/tiny --base-url http://127.0.0.1:8000/v1
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from lf_longpo.config import ChatConfig, SamplingConfig
from lf_longpo.errors import UserError
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.models.embedded import model_path
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.tokenizers import chat_tokens, load_tokenizer

NAME = "tiny"
TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
SETTINGS: list[dict[str, Any]] = [
    {},
    {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
    {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}},
    {"system": "Answer with one word."},
    {"system": "Answer with one word.", "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
]
"""Settings of a model. The prompt that arrives must have as many tokens as the template renders here."""


def make(folder: Path) -> None:
    """Writes a random Qwen3 with the embedded model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(model_path("smollm2-135m"))
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


async def reply(config: ChatConfig, sampling: SamplingConfig) -> Completion:
    """One reply of the server, after the checks of a run's start."""
    chat = OpenAIChat(config)
    try:
        await chat.start()
        return await chat.complete(ChatRequest("Who lit the lamp?", sampling, seed=1))
    finally:
        await chat.close()


def check_requests(folder: Path, server: dict[str, Any]) -> None:
    """Compares the tokens of the prompt that arrived with those that the template renders here."""
    tokenizer = load_tokenizer(str(folder), "model")
    rendered = []
    for settings in SETTINGS:
        config = ChatConfig(model=NAME, **server, **settings)
        completion = asyncio.run(reply(config, SamplingConfig(max_new_tokens=4)))
        rendered.append(chat_tokens("Who lit the lamp?", tokenizer, config))
        report(f"{settings or 'defaults'}: {completion.prompt_tokens} tokens", completion.prompt_tokens == rendered[-1])
    report("the settings change the prompt", rendered[0] == rendered[2] and len(set(rendered)) == len(rendered) - 1)


def check_mistakes(server: dict[str, Any]) -> None:
    """A wrong name and a wrong port end with one line that names them."""
    wrong = {"model": "another"}, {"base_url": "http://127.0.0.1:9/v1"}
    for settings in wrong:
        try:
            asyncio.run(reply(ChatConfig(**{"model": NAME} | server | settings), SamplingConfig()))
            report(f"{settings}: no error", False)
        except UserError as error:
            value = next(iter(settings.values()))
            report(str(error), value in str(error) and "\n" not in str(error))


def check_run(folder: Path, server: dict[str, Any]) -> None:
    """The probes of LongMab-PO on two questions, with a system prompt and without thinking. Random text passes none."""
    rows = [
        {
            "id": f"q{i}",
            "question": "Who lit the lamp?",
            "answer": "Ada",
            "context": "Ada lit the lamp. Rain fell. " * 40,
        }
        for i in range(2)
    ]
    with tempfile.TemporaryDirectory() as work:
        path = Path(work)
        (path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        settings = {
            "method": "longmab",
            "input": str(path / "questions.jsonl"),
            "output_dir": str(path / "run"),
            "dataset_dir": str(path / "data"),
            "dataset_name": "pairs",
            "policy": {"model": NAME, **server, **SETTINGS[-1]},
            "embedder": {"model": "minilm"},
            "tokenizer": str(folder),
            "longmab": {"chunk_size": 90, "rounds": 4, "top_k": 2, "sampling": {"max_new_tokens": 8}},
            "pairs": {"template": "smollm2", "cutoff_len": 768, "allow_truncated": True},
        }
        (path / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = [sys.executable, "-m", "lf_longpo", "generate", str(path / "run.yaml"), "--stage", "probe"]
        run = subprocess.run(command, capture_output=True, text=True)
        probes = path / "run/probes.jsonl"
        finished = run.returncode == 0 and len(probes.read_text(encoding="utf-8").splitlines()) == len(rows)
        report(f"longpo generate --stage probe: exit code {run.returncode}\n{run.stdout}{run.stderr}", finished)


def report(text: str, holds: bool) -> None:
    """Prints a result; ends with exit code 1 if it does not hold."""
    print("ok  " if holds else "FAIL", text, flush=True)
    if not holds:
        sys.exit(1)


def main() -> None:
    """Makes the model, or runs all checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("make", "check"))
    parser.add_argument("folder", type=Path, help="folder of the model")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1", help="address of the server")
    options = parser.parse_args()
    if options.step == "make":
        make(options.folder)
        return
    server = {"base_url": options.base_url, "send_seed": False}  # vLLM on a CPU crashes on a seed with chunked prefill
    check_requests(options.folder, server)
    check_mistakes(server)
    check_run(options.folder, server)


if __name__ == "__main__":
    main()
