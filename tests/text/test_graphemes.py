"""Grapheme clusters: positions and words do not split what a reader sees as one character."""

from itertools import pairwise

import pytest

from lf_longpo.text.graphemes import whole_end, whole_start, words

FAMILY, SWISS, ENGLAND = "👨‍👩‍👧", "🇨🇭", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
SHALOM = "שָׁלוֹם"


@pytest.mark.parametrize("cluster", [FAMILY, SWISS, ENGLAND, "e\u0301", "👍🏽", "葛\U000e0100", "ก\u0e33"])
def test_a_position_within_a_character_moves_to_its_edges(cluster):
    text = f"a {cluster} b"
    begin, end = 2, 2 + len(cluster)
    for position in range(begin + 1, end):
        assert (whole_start(text, position), whole_end(text, position)) == (begin, end)
    for position in (0, 1, begin, end, len(text)):
        assert whole_start(text, position) == whole_end(text, position) == position


def test_words_keep_accents_and_emoji_together():
    text = f"Cafe\u0301 {FAMILY}{SWISS}, {SHALOM} नमस्ते 桥abc ไทย"
    found, rest = words(text, 100)
    assert "".join(found) == text and rest == ""
    assert {"Cafe\u0301", FAMILY, SWISS, SHALOM, "नमस्ते", "桥", "abc", "ไ"} <= set(found)
    edges = [0]
    for word in found:
        edges.append(edges[-1] + len(word))
    assert all(whole_start(text, edge) == edge for edge, _ in pairwise(edges))


def test_only_the_first_words_are_listed():
    assert words("one two three", 3) == (["one", " ", "two"], " three")
