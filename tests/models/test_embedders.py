"""Texts that are longer than the embedder's window."""

import numpy as np
import pytest

from lf_longpo.config import EmbedderConfig
from lf_longpo.models.cache import CallCache
from lf_longpo.models.embedders import make_embedder, unit_vectors
from lf_longpo.models.ledger import Ledger

LINE = "embedder minilm: reads 254 tokens at once; longer texts are embedded in pieces"
RAIN = "It rained for a week, and nobody left the house. " * 30
WHALES = "The blue whale is the largest animal that has ever lived in the sea. "


@pytest.fixture
async def embedder():
    made = make_embedder(EmbedderConfig(device="cpu"), CallCache(None), Ledger())
    yield made
    await made.close()


async def test_the_end_of_a_long_text_counts(embedder, capsys):
    query, rain, whales = await embedder.embed("q", ["What is the largest whale?", RAIN + RAIN, RAIN + WHALES * 20])
    assert query @ whales > query @ rain + 0.2
    assert capsys.readouterr().err.splitlines().count(LINE) == 1


async def test_the_vector_of_a_long_text_is_the_unit_mean_of_its_pieces(embedder):
    text = RAIN + WHALES * 20
    await embedder.start()
    pieces = embedder._pieces(text)
    assert "".join(pieces) == text and len(pieces) == 3
    sizes = [len(embedder._model.tokenizer(piece)["input_ids"]) for piece in pieces]
    assert max(sizes) <= 256 and max(sizes) - min(sizes) <= 4
    [whole, short] = await embedder.embed("q", [text, WHALES])
    vectors = await embedder.embed("q", pieces)
    mean = vectors.mean(0)
    np.testing.assert_allclose(whole, mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(short, (await embedder.embed("q", [WHALES]))[0], atol=1e-5)


async def test_the_most_similar_piece_gives_the_similarity(embedder):
    long, anchor = RAIN + WHALES * 20, WHALES + RAIN
    alike = await embedder.similarities("q", anchor, [long, WHALES, RAIN])
    pieces = embedder._pieces(long)
    [vector, *parts] = await embedder.embed("q", [anchor, *pieces])
    assert alike.shape == (3,) and len(embedder._pieces(anchor)) == 2
    np.testing.assert_allclose(alike[0], max(part @ vector for part in parts), atol=1e-5)
    np.testing.assert_allclose(alike[1], (await embedder.embed("q", [WHALES]))[0] @ vector, atol=1e-5)
    assert abs(alike[0] - (await embedder.embed("q", [long]))[0] @ vector) > 1e-3  # not the mean's


async def test_texts_that_fit_are_embedded_as_before(embedder, capsys):
    texts = [WHALES, WHALES * 5, "", " "]
    vectors = await embedder.embed("q", texts)
    expected = embedder._model.encode(texts, normalize_embeddings=True)
    np.testing.assert_array_equal(vectors, unit_vectors(expected, len(texts), "minilm"))
    assert LINE not in capsys.readouterr().err
