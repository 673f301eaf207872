"""Differences of two texts, and texts for display."""

from lf_longpo.text.differences import differences, visible


def test_differences_keep_the_texts():
    first, second = "The bridge was built in 1931 by Anna.", "The bridge, 这座桥, was built in 1932."
    sides = differences(first, second)
    assert ["".join(piece.text for piece in side) for side in sides] == [first, second]
    assert [piece.text for piece in sides[0] if piece.own] == ["1931 by Anna"]
    long = "word " * 5000
    assert "".join(piece.text for piece in differences(long, long)[0]) == long
    assert visible("a\r\nb\u202ec", 100) == "a\nb⟨U+202E⟩c"
