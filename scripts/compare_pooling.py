"""Compares ways to embed chunks that are longer than the embedder's window, on MuSiQue.

The paragraphs of several questions make one long context. For each question and way, the chunks are ranked by their
similarity to the question, or to question and answer, as a probe has both. A chunk is right if it holds a supporting
paragraph of the question.

    python scripts/compare_pooling.py musique_train.json 5 1500

The numbers are those of the questions a context and of the tokens a chunk. Prints the mean over questions of
- AUC: the share of pairs (right chunk, other chunk) in which the right one ranks higher,
- recall@4: the share of right chunks among the first four.
"""

import json
import sys

import numpy as np
from sentence_transformers import SentenceTransformer

from lf_longpo.models.embedded import resolve
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.text.chunking import chunk_sentences, split_evenly


def main(path: str, together: int, chunk_size: int) -> None:
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    model = SentenceTransformer(resolve("minilm"), device="cpu")
    counts = load_tokenizer("smollm2-135m", "tokenizer")
    pieces_by = load_tokenizer("minilm", "embedder")
    size = model.max_seq_length - model.tokenizer.num_special_tokens_to_add()

    def encode(texts: list[str]) -> np.ndarray:
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for start in range(0, len(rows), together):
        group = rows[start : start + together]
        texts = [paragraph["paragraph_text"] for row in group for paragraph in row["paragraphs"]]
        chunks = chunk_sentences("\n".join(texts), counts, chunk_size)
        pieces = [split_evenly(chunk, pieces_by, size) for chunk in chunks]
        owners = np.repeat(np.arange(len(chunks)), [len(part) for part in pieces])
        vectors = encode([piece for part in pieces for piece in part])
        first = encode(chunks)
        means = np.stack([vectors[owners == i].mean(0) for i in range(len(chunks))])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        for row in group:
            support = [p["paragraph_text"] for p in row["paragraphs"] if p["is_supporting"]]
            right = np.array([any(text[:80] in chunk for text in support) for chunk in chunks])
            if right.all() or not right.any():
                continue
            for kind, query in (
                ("question", row["question"]),
                ("question and answer", f"{row['question']} {row['answer']}"),
            ):
                vector = encode([query])[0]
                alike = vectors @ vector
                values = {
                    "window": first @ vector,
                    "mean": means @ vector,
                    "maximum": np.array([alike[owners == i].max() for i in range(len(chunks))]),
                }
                for way, value in values.items():
                    results.setdefault((kind, way), []).append(quality(value, right))
    for (kind, way), found in results.items():
        auc, recall = np.mean(found, axis=0)
        print(f"{chunk_size:5} {kind:20} {way:8} AUC {auc:.3f}  recall@4 {recall:.3f}  n={len(found)}")


def quality(values: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """AUC and recall@4 of a ranking."""
    auc = float((values[right][:, None] > values[~right][None]).mean())
    return auc, float(right[np.argsort(-values)[:4]].sum() / right.sum())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
