"""Differences of two texts, and texts for display."""

from lf_longpo.text.differences import LEAST_COMMON, differences, unmarked_note, visible


def test_differences_keep_the_texts():
    first, second = "The bridge was built in 1931 by Anna.", "The bridge, 这座桥, was built in 1932."
    sides = differences(first, second)
    assert ["".join(piece.text for piece in side) for side in sides] == [first, second]
    assert [piece.text for piece in sides[0] if piece.own] == ["1931 by Anna"]
    long = "word " * 5000
    assert "".join(piece.text for piece in differences(long, long)[0]) == long
    assert visible("a\r\nb\u202ec", 100) == "a\nb⟨U+202E⟩c"


def own(first: str, second: str) -> list[list[str]]:
    return [[piece.text for piece in side if piece.own] for side in differences(first, second)]


def test_texts_with_little_in_common_have_no_marks():
    # Letters and digits in common words: 6 of 20 are enough, 4 of 20 are not.
    assert own("abc defghij", "abc klmnopq") == [["defghij"], ["klmnopq"]]
    assert LEAST_COMMON == 0.3
    sides = differences("ab cdefghij", "ab klmnopqr")
    assert not any(piece.own for side in sides for piece in side)
    assert "less than 30% of their letters in common" in unmarked_note(sides)
    assert unmarked_note(differences("abc defghij", "abc klmnopq")) == ""
    # Spaces and punctuation marks are not in common words.
    assert own("a, b, c, d.", "e, f, g, h.") == [[], []]


def test_marks_go_on_over_spaces_and_never_split_a_character():
    assert own("It was built in the year by Anna.", "It was built in no time by Anna.") == [["the year"], ["no time"]]
    assert own("The cafe\u0301 of Anna", "The cafe\u0300 of Anna") == [["cafe\u0301"], ["cafe\u0300"]]
    assert own("Anna 👨‍👩‍👧 Bern", "Anna 👨‍👩‍👦 Bern") == [["👨‍👩‍👧"], ["👨‍👩‍👦"]]
    assert own("这座桥建于1931年", "这座桥建于1932年") == [["1931"], ["1932"]]


def test_what_is_shown_of_a_text_keeps_its_scripts():
    scripts = "العربية\u200f: 5\u06dd שָׁלוֹם\u200e 👨‍👩‍👧 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert visible(scripts, 1000) == scripts
    assert visible("\U000e0067\u00ad", 100) == "⟨U+E0067⟩⟨U+00AD⟩"  # hidden letters
    shown = visible("a" * 9 + "👨‍👩‍👧" + "b" * 9, 20)
    assert shown == "aaaaaaaaa\n⟨ 5 characters not shown ⟩\nbbbbbbbbb"
