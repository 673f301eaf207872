import json
import os
import re
import zlib
from pathlib import Path

import pytest
from leaks import Leaks
from stub import KEY, MODEL, Stub

REPOSITORY = Path(__file__).parent.parent
REFERENCE = REPOSITORY.parent / "shared" / "reference"
REAL_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def tokenizer():
    """The embedded model's tokenizer (byte-level BPE)."""
    from lf_longpo.models.tokenizers import load_tokenizer

    return load_tokenizer("smollm2-135m", "tokenizer")


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of the tiny models, made when first asked for."""
    from tiny_models import tiny_model

    made = {}

    def model(family, **tokenizer):
        key = (family, *tokenizer.items())
        if key not in made:
            made[key] = tiny_model(family, tmp_path_factory.mktemp(family), **tokenizer)
        return made[key]

    return model


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("STUB_KEY", KEY)


@pytest.fixture
def stub(key):
    with Stub() as server:
        yield server


def code_questions(number: int) -> list[dict]:
    """Questions that the stub can answer from the one sentence that holds the code."""
    rows = []
    for index in range(number):
        facts = [f"The code of place{place} is word{(place * 7 + index) % 97}." for place in range(40)]
        rows.append(
            {
                "id": f"q{index}",
                "question": f"What is the code of place{index % 40}?",
                "answer": f"word{(index % 40 * 7 + index) % 97}",
                "context": " ".join(f"{fact} Rain fell there for {place} days." for place, fact in enumerate(facts)),
            }
        )
    return rows


def judged(prompt, seed):
    """A policy that answers by its seed, and a judge that likes some answers better."""
    if "--- The case" not in prompt:
        return f"Word number {seed % 1000}."
    case = prompt[prompt.rindex("--- The case") :]
    if case.endswith("Statements:"):
        answer = re.search(r"Word number \d+", case)[0]
        return f"<statement>{answer} is given.</statement>\n<statement>{answer} is a word.</statement>"
    if "<claim>" in case:
        return "[[Partially supported]]"
    return f"So.\n[[{zlib.crc32(case.encode()) % 11}]]" if case.endswith("Analysis:") else "A word is there."


def graded(prompt, seed):
    """Answers of different lengths and rewards."""
    if "Correct answer: " in prompt:
        return f"The answer is {prompt.partition('Correct answer: ')[2].split()[0]}."
    place = prompt.rsplit("code of ", 1)[1].partition("?")[0]
    found = prompt.partition(f"The code of {place} is ")[2].partition(".")[0] or "unknown"
    return f"{f'Thought {seed % 97}. ' * (seed % 13)}Answer: {found}{' or so' * (seed % 4)}"


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_settings(stub: Stub, folder: Path, questions: Path) -> dict:
    """A generation against the stub, as the data of a configuration file."""
    server = {"base_url": stub.base_url, "api_key_env": "STUB_KEY"}
    return {
        "method": "longmab",
        "input": str(questions),
        "output_dir": str(folder / "run"),
        "dataset_dir": str(folder / "data"),
        "dataset_name": "codes",
        "policy": {"backend": "openai", "model": MODEL, "max_concurrency": 4, "max_retries": 2, **server},
        "embedder": {"backend": "openai", "model": "stub-embedder", **server},
        "tokenizer": "smollm2-135m",
        "longmab": {"chunk_size": 80, "rounds": 6, "top_k": 2},
        "pairs": {"template": "smollm2", "cutoff_len": 512},
    }


def pytest_configure(config):
    leaks = Leaks()
    config.pluginmanager.register(leaks)
    # Workers of pytest-xdist share the cores. PyTorch's threads in one must not wait in a loop on a core of another.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
