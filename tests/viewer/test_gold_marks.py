from lf_longpo.viewer.gold_marks import context_parts, gold_spans, marked


def found(text, *answers):
    return [text[start:end] for start, end in gold_spans(text, answers)]


def test_case_and_spaces_do_not_matter_and_parts_of_words_do_not_count():
    assert found("The  RED\nbarn, the redbarn and a red barn.", "red barn") == ["RED\nbarn", "red barn"]
    assert found("42 of 420 and x42", "42") == ["42"] and not found("abc", "") and not found("abc")
    assert found("答案是北京市。", "北京") == ["北京"] and found("Is it C++? c++x", "C++") == ["C++", "c++"]


def test_the_longest_answer_is_marked_and_marks_are_limited():
    assert found("New York City or New York", "New York", "New York City") == ["New York City", "New York"]
    assert len(found("a " * 1000, "a")) == 200


def test_a_context_is_cut_at_answers_and_chunks():
    parts = context_parts("on the Rhine. By the Rhine.", ["Rhine"], [(0, 13), (11, 27)])
    assert [(part.text, part.gold, part.label) for part in parts] == [
        ("on the ", False, "chunk 1"), ("Rhin", True, ""), ("e", True, "chunk 2"),
        (". By the ", False, ""), ("Rhine", True, ""), (".", False, ""),
    ]  # fmt: skip


def test_pieces_join_to_the_text():
    pieces = marked("Answer: Rhine!", ["rhine"], 100)
    assert [(piece.text, piece.own) for piece in pieces] == [("Answer: ", False), ("Rhine", True), ("!", False)]
    assert marked("", ["x"], 10) == []
