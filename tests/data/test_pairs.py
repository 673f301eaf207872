"""The journal of pairs, with a fitter that counts characters."""

import json

from lf_longpo.data.pairs import Pairs, check_question_ids, current_pairs
from lf_longpo.data.records import Question, ScoredResponse
from lf_longpo.errors import TextTooLong

QUESTION = Question("q1", "Why?", ("so",), "context " * 4)


class Fitter:
    """Prompt and longest response have at most 40 characters together."""

    def fit(self, context, render, responses):
        left = 40 - max(map(len, responses)) - len(render(""))
        if left < 0:
            raise TextTooLong("too long")
        return context[:left]

    def written(self, response):
        return response.text


def render(context):
    return f"{context}|Why?"


def pair(good, bad, indices=(0, 1)):
    return ScoredResponse(good, 9.0, indices[0]), ScoredResponse(bad, 1.0, indices[1])


async def rows_after(tmp_path, *sets, several=True):
    pairs = Pairs(tmp_path, Fitter(), several)
    made = [await pairs.add(QUESTION, render, listed) for listed in sets]
    rows = [json.loads(line) for line in pairs.lines(["q1", "q2"])]
    assert pairs.number(["q1", "q2"]) == made[-1] == len(rows) and pairs.ids(["q2", "q1"]) == ["q1"]
    pairs.close()
    return rows


async def test_pairs_of_a_question_share_a_prompt_that_fits_their_longest_response(tmp_path):
    rows = await rows_after(
        tmp_path, [pair("good", "bad"), pair("g", "a longer response", (2, 5)), pair("x", "y", (3, 4))]
    )
    assert [row["id"] for row in rows] == ["q1", "q1#2-5", "q1#3-4"]
    assert {row["question_id"] for row in rows} == {"q1"}
    assert {row["prompt"] for row in rows} == {render(QUESTION.context[: 40 - 17 - 5])}
    assert [row["answer"] for row in rows] == ["so"] * 3


async def test_a_further_pair_without_room_for_its_prompt_is_not_made(tmp_path):
    rows = await rows_after(tmp_path, [pair("good", "bad"), pair("g", "b" * 36, (2, 5)), pair("g", "b" * 35, (3, 4))])
    assert [row["id"] for row in rows] == ["q1", "q1#3-4"] and rows[0]["prompt"] == "|Why?"


async def test_the_last_pairs_of_a_question_count_and_the_same_ones_are_not_written_again(tmp_path):
    first, second = [pair("good", "bad"), pair("g", "b", (2, 5))], [pair("better", "bad", (7, 1))]
    await rows_after(tmp_path, first, first)
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 2
    rows = await rows_after(tmp_path, second)
    assert [row["chosen"] for row in rows] == ["better"]
    assert len(await rows_after(tmp_path, first)) == 2
    assert current_pairs([{"id": "q1#0-1"}], "q1") == []


async def test_one_pair_a_question_has_the_published_fields(tmp_path):
    (row,) = await rows_after(tmp_path, [pair("good", "bad")], several=False)
    assert list(row) == [
        "id", "input", "answer", "prompt", "chosen", "rejected",
        "chosen_reward", "rejected_reward", "chosen_index", "rejected_index",
    ]  # fmt: skip
    check_question_ids(["q1", "q2#3-4", "q1#a-4"])
