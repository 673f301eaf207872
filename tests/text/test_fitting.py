"""Cutting the middle of a context."""

import pytest

from lf_longpo.errors import TextTooLong
from lf_longpo.text.chunking import count_tokens
from lf_longpo.text.fitting import CUT_MARK, cut_middle


def test_middle_cut_keeps_both_ends_and_the_limit(tokenizer):
    text = "BEGIN " + "middle 中间。 " * 400 + " END"

    def measure(context):
        return count_tokens(f"Read:\n{context}\nQuestion: why?", tokenizer)

    for limit in (60, 200, 999):
        cut = cut_middle(text, tokenizer, measure, limit)
        assert limit - 8 <= measure(cut) <= limit
        assert cut.startswith("BEGIN") and cut.endswith("END") and CUT_MARK in cut
    assert cut_middle(text, tokenizer, measure, 10_000) == text
    with pytest.raises(TextTooLong, match="limit is 5"):
        cut_middle(text, tokenizer, measure, 5)
