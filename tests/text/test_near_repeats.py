"""Which responses count as repeats, by value."""

import pytest

from lf_longpo.text.near_repeats import Wording

TEN = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("first", "second", "repeats"),
    [
        ("The lamp is lit.", "the lamp, is LIT", True),
        ("", "", True),
        (TEN, TEN.replace("ten", "eleven"), True),  # 2 * 9 of 20 words: 0.9
        (TEN, TEN.replace("nine ten", "ten eleven twelve"), False),  # 2 * 9 of 21 words
        (f"{TEN}. Answer: Rome", f"{TEN}. Answer: the Rome!", True),
        (f"{TEN} {TEN}. Answer: Rome", f"{TEN} {TEN}. Answer: Oslo", False),  # another answer
        (f"{TEN} {TEN}. Answer: Rome", f"{TEN} {TEN}. Rome", False),  # one without an answer
        (f"{TEN}. Answer: Rome", "It is Rome. Answer: Rome", False),  # the same answer in other words
        ("灯在一九一二年由安娜点亮", "灯在一九一三年由安娜点亮", True),  # 11 of 12 characters
        ("灯在一九一二年由安娜点亮", "桥在一九三一年由安娜建成", False),
    ],
)
def test_repeats_have_the_same_answer_and_nine_of_ten_words(first, second, repeats):
    assert Wording.of(first).repeats(Wording.of(second)) is repeats
    assert Wording.of(second).repeats(Wording.of(first)) is repeats
