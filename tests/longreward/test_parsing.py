"""Reading ratings and support from a judge's reply, compared with the published code."""

from reference_vectors import needs_vectors, vectors

from lf_longpo.longreward.parsing import find_rating, find_support
from lf_longpo.text.language import detect_language


@needs_vectors
def test_parsing_equals_the_published_code():
    ratings, supports, languages = (vectors(f"longreward_{name}.jsonl") for name in ("ratings", "support", "language"))
    assert (len(ratings), len(supports), len(languages)) == (150, 120, 60)
    assert [find_rating(row["text"]) for row in ratings] == [row["rating"] for row in ratings]
    assert [find_support(row["text"]) for row in supports] == [row["support"] for row in supports]
    assert [detect_language(row["text"]) for row in languages] == [row["language"] for row in languages]
