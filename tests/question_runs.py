"""Small runs with questions in every state, written by hand: no model and no server."""

import json
from pathlib import Path

import yaml
from conftest import write_jsonl
from tokenizers import Tokenizer, models, pre_tokenizers

from lf_longpo.longreward.scorer import DIMENSIONS

ANSWER = "Rhine"
CONTEXT = "Basel is on the Rhine. Bern is on the Aare. Chur is near the RHINE. Rhinemaidens sing there."
"""Four sentences of five, five, five and three words: four chunks of at most five words."""


def question(id, **changes):
    return {"id": id, "question": f"Which river is {id} on?", "answer": ANSWER, "context": CONTEXT} | changes


def pair(id, **changes):
    return {
        "id": id, "input": f"Which river is {id} on?", "answer": ANSWER,
        "prompt": f"{CONTEXT}\n\nWhich river is {id} on?",
        "chosen": "Answer: Rhine", "rejected": "Answer: Aare", "chosen_reward": 1.0, "rejected_reward": 0.0,
        "chosen_index": 0, "rejected_index": 1,
    } | changes  # fmt: skip


def rollout(id, round, output, **changes):
    row = {"id": id, "round": round, "arms": [round, 3], "output": output, "reward": 0.5, "values": [0.0] * 4}
    return row | {"truncated": False} | changes


def probe(id, kept=True):
    return {"id": id, "digest": "0", "kept": kept, "probe": f"The answer is {ANSWER if kept else 'no'}.",
            "initial_values": [0.0] * 4 * kept}  # fmt: skip


def sample(idx, answer, **changes):
    return {"idx": idx, "query": "Which?", "answer": answer} | changes


def score(idx, answer, rating, **changes):
    details = {name: {"score": rating, "analysis": f"{name} of {idx}"} for name in DIMENSIONS}
    statement = {
        "fact": "A statement.",
        "score": 0.5,
        "analysis": "partly",
        "evidences": [{"c_idx": 0, "content": "Bern"}],
    }
    details["faithfulness"]["details"] = [statement]
    scores = {name: rating for name in DIMENSIONS}
    return sample(idx, answer, **changes) | {"scores": scores, "reward": rating, "details": details}


def write_run(folder: Path, method: str, questions, summary=True, **journals) -> Path:
    """A run's folder with the given rows in its journals; a summary says that it ended."""
    run = folder / "run"
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (folder / "words").mkdir(parents=True)
    tokenizer.save(str(folder / "words/tokenizer.json"))
    write_jsonl(folder / "q.jsonl", questions)
    server = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    settings = {
        "method": method, "input": str(folder / "q.jsonl"), "output_dir": str(run), "dataset_dir": str(folder / "data"),
        "dataset_name": "rivers", "policy": server, "tokenizer": str(folder / "words"),
        "pairs": {"template": "smollm2", "cutoff_len": 512},
    }  # fmt: skip
    if method == "longmab":
        settings |= {"embedder": server, "longmab": {"chunk_size": 5, "chunk_overlap": 0, "rounds": 3, "top_k": 2}}
    else:
        settings |= {"judge": server, "embedder": server, "longreward": {"num_samples": 3, "min_responses": 2}}
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    for name in ("pairs", "probes" if method == "longmab" else "sampled_responses"):
        journals.setdefault(name, [])
    for name, rows in journals.items():
        write_jsonl(run / f"{name}.jsonl", rows)
    if summary:
        (run / "summary.json").write_text(json.dumps({"stage": "pairs", "interrupted": False, "unfinished": 0}))
    return run


def longmab_run(folder, summary=True, **changes):
    """Questions with a pair, no difference, a failed probe, truncated rollouts, a long pair, a failure, and two
    unfinished ones."""
    right, wrong, other = "Answer: Rhine", "Answer: Aare", "Answer: Inn"
    rows = {
        "probes": [probe(id) for id in ("pair", "equal", "cut", "long", "begun")] + [probe("probe", kept=False)],
        "rollouts": [
            *(rollout("pair", n, text) for n, text in enumerate((right, wrong, "It is the Rhine."))),
            *(rollout("equal", n, text) for n, text in enumerate((wrong, other, wrong))),
            *(rollout("cut", n, text, truncated=n > 0) for n, text in enumerate((right, wrong, ""))),
            *(rollout("long", n, text) for n, text in enumerate((right, wrong, wrong))),
            rollout("begun", 0, right),
        ],
        "pairs": [pair("pair"), pair("long")],
        "failures": [
            {"id": "long", "reason": "the training prompt does not fit pairs.cutoff_len: 900 tokens"},
            {"id": "boom", "reason": "500: boom"},
        ],
    }
    ids = ("pair", "equal", "probe", "cut", "long", "boom", "begun", "new")
    return write_run(folder, "longmab", [question(id) for id in ids], summary, **(rows | changes))


def longreward_run(folder, summary=True, **changes):
    """Questions with a pair, no difference, truncated responses, a failure, a lost response, and an unfinished one."""
    rows = {
        "sampled_responses": [
            *(sample(f"pair-{n}", f"Text {n}.") for n in range(3)),
            *(sample(f"equal-{n}", f"Text {n}.") for n in range(3)),
            *(sample(f"cut-{n}", f"Text {n}.", **({"truncated": True} if n else {})) for n in range(3)),
            *(sample(f"lost-{n}", f"Text {n}.") for n in range(2)),
            *(sample(f"begun-{n}", f"Text {n}.") for n in range(2)),
        ],
        "scored_responses": [
            *(score(f"pair-{n}", f"Text {n}.", 2.0 * n) for n in range(3)),
            *(score(f"equal-{n}", f"Text {n}.", 5) for n in range(3)),
            *(score(f"cut-{n}", f"Text {n}.", n, **({"truncated": True} if n else {})) for n in range(3)),
            *(score(f"lost-{n}", f"Text {n}.", 5) for n in range(2)),
            score("begun-0", "Text 0.", 7),
        ],
        "pairs": [pair("pair", chosen="Text 2.", rejected="Text 0.", chosen_index=2, rejected_index=0,
                       chosen_reward=4.0, rejected_reward=0.0)],
        "failures": [
            {"id": "lost-2", "reason": "timed out"},
            {"id": "boom", "reason": "only 1 of 3 responses have a score; longreward.min_responses is 2"},
        ],
    }  # fmt: skip
    ids = ("pair", "equal", "cut", "boom", "lost", "begun")
    return write_run(folder, "longreward", [question(id) for id in ids], summary, **(rows | changes))
