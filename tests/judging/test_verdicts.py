"""The forms in which judges write their verdicts, and what the published rules make of them."""

import pytest
from reference_vectors import needs_vectors, vectors

from lf_longpo.evaluation.both_orders import _parse
from lf_longpo.judging.verdicts import own_verdict, rating_between
from lf_longpo.longreward.parsing import rating_in_range, support_level


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("Good. [[8]]", 8),
        ("[[7.5]]", 7.5),
        ("[[8/10]]", 8),
        ("[[8 / 10]]", 8),
        ("[[8]]/10", 8),
        ("[[8 out of 10]]", 8),
        ("[[ 8 ]]", 8),
        ("[[Rating: 8]]", 8),
        ("[[Helpfulness = 8]]", 8),
        ("[[评分：8分]]", 8),
        ("［［８］］", 8),
        ("【【8分】】", 8),
        ("⟦8⟧", 8),
        (r"\[\[8\]\]", 8),
        ("[ [8] ]", 8),
        ("[[**8**]]", 8),
        ("[[8 points]]", 8),
        ("First I thought [[3]]. Rating: [[9/10]]", 9),
        ("Rating: [[8]] (on a scale from [[0]] to [[10]])", 8),
        ("On a scale of [[1]] to [[10]], I rate it [[8]].", 8),
        ("I rate it [[8]] out of [[10]].", 8),
        ("[[8]]/[[10]]", 8),
        ("[[8]], where [[10]] is the best.", 8),
        ("满分[[10]]，得分[[8]]", 8),
        ("[[8]]（满分为[[10]]）", 8),
        ("[[6]]\n[[10]]", 10),
        ("Rating: 8 out of [[10]]", None),
        ("Faults: 0\n- [[10]]", 10),
        ("First I thought [[3]]. Rating: [[nine]]", None),
        ("[[3]] [[4/5]]", None),
        ("[[4]]/5", None),
        ("[[-3]]", None),
        ("[[11]]", None),
        ("[[8-9]]", None),
        ("[[Max: 10]]", None),
        ("[[]]", None),
        ("8", None),
        ("[[" + "9" * 5000 + "]]", None),
        ("[[8/" + "9" * 5000 + "]]", None),
        ("[[" * 100_000, None),
    ],
)
def test_the_last_brackets_are_the_rating(reply, rating):
    assert rating_in_range(reply) == rating


@pytest.mark.parametrize(
    ("reply", "level"),
    [
        ("[[Fully supported]]", 1),
        ("[[Supported]]", 1),
        ("[[Full support]]", 1),
        ("[[ fully supported. ]]", 1),
        ("［［Fully supported］］", 1),
        ("[[Verdict: **Partially supported**]]", 0.5),
        ("[[Partial support]]", 0.5),
        ("[[部分支持]]", 0.5),
        ("[[完全支持]]", 1),
        ("[[不支持]]", 0),
        ("[[No support]]", 0),
        ("[[Not supported]]", 0),
        ("[[Unsupported]]", 0),
        ("[[N/A]]", 0),
        ("[[Fully supported]] [[7]]", None),
        ("[[Fully supported]] No: [[unclear]]", None),
        ("[[Not fully supported]]", None),
        ("Fully supported", None),
    ],
)
def test_the_last_brackets_are_the_level_of_support(reply, level):
    assert support_level(reply) == level


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("[[1]]", 1.0),
        ("[[Answer 2]]", 0.0),
        ("[[ Tie ]]", 0.5),
        ("［［1］］", 1.0),
        ("[[1]] or [[both]]", None),
        ("", None),
    ],
)
def test_the_last_brackets_are_the_better_answer(reply, score):
    assert _parse(reply) == score


@needs_vectors
def test_whole_verdicts_of_the_published_rules_stay():
    """Where a reply ends in brackets with what the published code reads, both rules agree."""
    ratings = [
        row
        for row in vectors("longreward_ratings.jsonl")
        if row["rating"] is not None and row["text"].endswith(f"[[{row['rating']:g}]]")
    ]
    levels = [row for row in vectors("longreward_support.jsonl") if row["text"].endswith(("supported]]", "Support]]"))]
    assert len(ratings) > 60 and len(levels) > 20
    assert [rating_between(row["text"], 0, 11) for row in ratings] == [row["rating"] for row in ratings]
    assert [support_level(row["text"]) for row in levels] == [row["support"] for row in levels]


def test_quotes_in_other_brackets_are_quotes():
    assert own_verdict("The text has ［［10］］.\n［［3］］", "［［10］］") == "［［3］］"
    assert own_verdict("It ends with ［［10］］", "［［10］］") == ""
    assert own_verdict("He wrote [[10]].\nRating: [[8]]/10", "[[10]]") == "Rating: [[8]]/10"
