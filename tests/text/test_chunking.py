"""Cutting texts into sentences and chunks."""

import random
from itertools import pairwise

import pytest

from lf_longpo.text.chunking import chunk_sentences, chunk_tokens, count_tokens, split_evenly, split_sentences

ENGLISH = 'Dr. Ames came late. "Why?" she asked! He paid 3.14 euros...\n\nNobody spoke (yet). The end'


CHINESE = "北京是中国的首都。它有很长的历史！你去过吗？“没有。”他说；然后走了……再见"


MIXED = f"{ENGLISH}\r\n{CHINESE} \U0001f469‍\U0001f680 naïve café\t\n- item one\n- item two\n"


def without_overlaps(chunks, text):
    """Joins chunks, dropping from each what the text so far already has."""
    joined = ""
    for chunk in chunks:
        keep = next(size for size in range(len(chunk), -1, -1) if text.startswith(joined + chunk[len(chunk) - size :]))
        assert keep > 0
        joined += chunk[len(chunk) - keep :]
    return joined


def test_sentences_join_to_the_text():
    for text in (ENGLISH, CHINESE, MIXED, "", "\n\n", "no stop", " . "):
        assert "".join(split_sentences(text)) == text
    assert split_sentences("One. Two! 三。四？五") == ["One. ", "Two! ", "三。", "四？", "五"]
    assert split_sentences("He paid 3.14 euros.") == ["He paid 3.14 euros."]


@pytest.mark.parametrize("overlap", [0, 1, 2, 5])
@pytest.mark.parametrize("chunk_size", [8, 30, 200])
def test_chunks_lose_nothing_and_fit(tokenizer, chunk_size, overlap):
    draw = random.Random(chunk_size * 10 + overlap)
    text = "".join(draw.choice([ENGLISH, CHINESE, MIXED, "x" * 60, " word" * 50]) for _ in range(12))
    chunks = chunk_sentences(text, tokenizer, chunk_size, overlap)
    assert all(count_tokens(chunk, tokenizer) <= chunk_size for chunk in chunks)
    assert without_overlaps(chunks, text) == text
    if overlap == 0:
        assert "".join(chunks) == text


def test_each_chunk_begins_with_the_last_two_sentences_of_the_one_before(tokenizer):
    text = " ".join(f"Sentence number {number} stands here." for number in range(40))
    chunks = chunk_sentences(text, tokenizer, 60, overlap=2)
    assert len(chunks) > 3
    for before, after in pairwise(chunks):
        assert after.startswith("".join(split_sentences(before)[-2:]))


def test_short_and_empty_contexts(tokenizer):
    assert chunk_sentences("Only this.", tokenizer, 1500) == ["Only this."]
    assert chunk_sentences("", tokenizer, 1500) == []
    with pytest.raises(ValueError, match="chunk_size"):
        chunk_sentences("x", tokenizer, 0)
    with pytest.raises(ValueError, match="takes more than"):
        chunk_sentences("\U0001f469", tokenizer, 1)


def test_token_chunks_join_to_the_text(tokenizer):
    for text in (ENGLISH, CHINESE, MIXED * 7):
        chunks = chunk_tokens(text, tokenizer, 16)
        assert "".join(chunks) == text
        assert len(chunks) >= count_tokens(text, tokenizer) // 16
    assert chunk_tokens("", tokenizer, 16) == []


@pytest.mark.parametrize("most", [1, 3, 7, 50, 10_000])
def test_pieces_are_few_and_about_equally_long(tokenizer, most):
    text = "The tower was built in 1889. 塔建于1889年。 It is 330 metres high, and 7 million people see it each year."
    pieces = split_evenly(text, tokenizer, most)
    tokens = count_tokens(text, tokenizer)
    assert "".join(pieces) == text
    assert len(pieces) <= -(-tokens // most) and (most > 1) <= (len(pieces) == -(-tokens // most))
    if most in (7, 50):
        sizes = [count_tokens(piece, tokenizer) for piece in pieces]
        assert max(sizes) - min(sizes) <= len(pieces)


def test_an_empty_text_is_one_piece(tokenizer):
    assert split_evenly("", tokenizer, 5) == [""]
