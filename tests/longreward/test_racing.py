"""Racing: which responses are checked, what the rows say about the others, and checks of several statements a call."""

import re

import pytest
from test_longreward import EN, Judge, by_worth, case, judge_on, question_rows, response_rows, rows, settings, split

from lf_longpo.config import GenerateConfig, JudgingConfig, LongRewardConfig
from lf_longpo.errors import UserError
from lf_longpo.generation.generate import estimate, generate
from lf_longpo.longreward.parsing import support_levels
from lf_longpo.longreward.racing import CHECKED, RATED, next_checks, total_intervals
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.question_records import QuestionRecords


def rated(*ratings: float) -> list[dict[str, float]]:
    """Responses whose three ratings are equal."""
    return [dict.fromkeys(RATED, rating) for rating in ratings]


def test_the_ends_are_checked_first_and_the_middle_is_given_up():
    scores = rated(7, 8, 6, 3, 7)
    assert next_checks(scores, 0.05) == [1, 3]
    scores[1][CHECKED], scores[3][CHECKED] = 8.0, 3.0
    assert next_checks(scores, 0.05) == []  # as their ratings predict: nothing in the middle reaches them
    scores[1][CHECKED] = 1.0  # the highest ratings, but few statements are supported
    assert next_checks(scores, 0.05) == [0]


def test_equal_ratings_are_all_checked():
    scores = rated(6, 6, 6)
    order = []
    while checks := next_checks(scores, 0.05):
        order.append(checks)
        for i in checks:
            scores[i][CHECKED] = 10.0
    assert order == [[0, 2], [1]]  # as the published rule of ties: the first of the best, the last of the worst
    assert next_checks([], 0.05) == []


def test_an_interval_is_the_prediction_interval_of_a_hand_computation():
    """Ratings as far apart as their mean: slope 1, no residual. The two checks give the variance."""
    scores = rated(2, 4, 6)
    scores[0][CHECKED], scores[2][CHECKED] = 3.0, 6.0  # offsets 1 and 0
    low, high = total_intervals(scores, 0.05)[1]
    width = 2.353363 * (0.5 / 3 * 1.5) ** 0.5  # t(3, 0.95), variance 0.5 / 3 of 2 + 2 - 1 degrees, two checks
    assert (low, high) == pytest.approx((12 + 4.5 - width, 12 + 4.5 + width), abs=1e-5)
    assert total_intervals(rated(5, 5), 0.05) == [(15, 25)] * 2
    narrow, wide = (total_intervals(scores, error)[1] for error in (0.2, 0.01))
    assert wide[0] < narrow[0] < narrow[1] < wide[1] <= 12 + 10


def checks_of(case: str) -> str:
    """Full support for good answers, none for bad ones."""
    worth = float(re.search(r"worth (\w+)", case)[1])
    return "[[Fully supported]]" if worth > 5 else "[[No support]]" if worth < 5 else "[[Partially supported]]"


def by_value(**replies) -> Judge:
    ratings = dict.fromkeys(RATED, by_worth)
    return Judge(**{**ratings, "statements": split, "faithfulness": checks_of, **replies})


WORTHS = {0: 5, 1: 9, 2: 6, 3: 1, 4: 4, 5: 5}
RACING = {"racing": True}


async def test_responses_in_the_middle_are_rated_and_not_checked(stub, tmp_path):
    judge = stub.answer = by_value()
    config = settings(stub, tmp_path, question_rows(1), response_rows(0, WORTHS), longreward=RACING)
    result = await generate(config)
    assert judge.count()["statements"] == 2 and judge.count()["faithfulness"] == 4
    assert all(judge.count()[stage] == 6 for stage in RATED)
    (pair,) = rows(tmp_path / "data/judged.jsonl")
    assert (pair["chosen_index"], pair["rejected_index"]) == (1, 3)
    assert (pair["chosen_reward"], pair["rejected_reward"]) == (37 / 4, 3 / 4)
    scored = {row["idx"]: row for row in rows(tmp_path / "run/scored_responses.jsonl")}
    assert set(scored) == {f"0-{number}" for number in WORTHS}
    middle = scored["0-2"]
    assert middle["not_scored"] == {"faithfulness": "cannot be best or worst"}
    assert middle["scores"] == dict.fromkeys(RATED, 6) and set(middle["details"]) == set(RATED)
    assert "reward" not in middle and "not_scored" not in scored["0-1"]
    assert (result.summary["scored"], result.summary["given_up"], result.summary["not_scored"]) == (2, 4, 0)
    records = QuestionRecords(RunFolder(tmp_path / "run"))
    records.read_on()
    shown = records.responses("0")[2]
    assert (shown.reward, shown.not_scored) == (None, "cannot be best or worst") and CHECKED not in shown.note
    assert "Racing gave up 4 of 6 responses" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    made = stub.chats
    again = await generate(config)
    assert stub.chats == made and again.summary["given_up"] == 4 and again.summary["pairs"] == 1
    assert len(rows(tmp_path / "run/scored_responses.jsonl")) == 6


async def test_a_given_up_response_is_checked_where_a_better_one_is_lost(stub, tmp_path):
    """The judge's verdict on the best response cannot be read: the second best is checked in its place."""

    def lost(case: str) -> str:
        return "hm" if "worth 9" in case else checks_of(case)

    stub.answer = by_value(faithfulness=lost)
    config = settings(stub, tmp_path, question_rows(1), response_rows(0, WORTHS), longreward=RACING)
    result = await generate(config)
    (pair,) = rows(tmp_path / "data/judged.jsonl")
    assert (pair["chosen_index"], pair["rejected_index"]) == (2, 3)
    assert result.summary["not_scored"] == 1 and [row["id"] for row in rows(tmp_path / "run/failures.jsonl")] == ["0-1"]
    assert "0-1" not in {row["idx"] for row in rows(tmp_path / "run/scored_responses.jsonl")}


async def test_truncated_responses_are_no_candidates(stub, tmp_path):
    judge = stub.answer = by_value()
    responses = response_rows(0, WORTHS)
    responses[1]["truncated"] = True
    result = await generate(settings(stub, tmp_path, question_rows(1), responses, longreward=RACING))
    assert not any("worth 9" in prompt for _, prompt in judge.asked)
    (pair,) = rows(tmp_path / "data/judged.jsonl")
    assert (pair["chosen_index"], pair["rejected_index"]) == (2, 3) and result.summary["not_scored"] == 0
    row = next(row for row in rows(tmp_path / "run/scored_responses.jsonl") if row["idx"] == "0-1")
    assert set(row["not_scored"].values()) == {"truncated: cannot be chosen or rejected"} and row["scores"] == {}


@pytest.mark.slow
async def test_a_changed_setting_makes_only_the_calls_that_it_needs(stub, tmp_path):
    """A truncated response becomes a candidate: it is rated and checked, and no other call is made. Then back: none."""
    judge = stub.answer = by_value()
    responses = response_rows(0, WORTHS)
    responses[1]["truncated"] = True

    async def pair_of(**pairs) -> tuple[int, int]:
        config = settings(stub, tmp_path, question_rows(1), responses, longreward=RACING, pairs=pairs)
        await generate(config)
        (pair,) = rows(tmp_path / "data/judged.jsonl")
        return pair["chosen_index"], pair["rejected_index"]

    assert await pair_of() == (2, 3)
    before = len(judge.asked)
    assert await pair_of(allow_truncated=True) == (1, 3)
    assert {"worth 9" in case(prompt) for _, prompt in judge.asked[before:]} == {True}
    before, scored = len(judge.asked), (tmp_path / "run/scored_responses.jsonl").read_text(encoding="utf-8")
    assert len(scored.splitlines()) == len(WORTHS) + 1
    assert await pair_of() == (2, 3) and len(judge.asked) == before
    assert (tmp_path / "run/scored_responses.jsonl").read_text(encoding="utf-8") == scored


# The ratings and the support of each response. If the fourth check were known from the beginning, the third response
# would be checked, too.
MIXED = ["5 7 8 10", "6 8 5 0", "6 6 6 0", "4 5 5 10", "8 5 7 5", "8 8 7 10"]


def mixed(case: str) -> list[str]:
    return re.search(r"scores (\d+) (\d+) (\d+) (\d+)", case).groups()


@pytest.mark.slow
@pytest.mark.parametrize("kept", [1, 4, 5])
async def test_a_race_that_was_killed_between_two_rows_gives_the_same_rows(stub, tmp_path, kept):
    ratings = {name: lambda case, i=i: f"[[{mixed(case)[i]}]]" for i, name in enumerate(RATED)}
    levels = {"10": "[[Fully supported]]", "5": "[[Partially supported]]", "0": "[[No support]]"}
    stub.answer = Judge(**ratings, statements=split, faithfulness=lambda case: levels[mixed(case)[3]])
    responses = [
        row | {"answer": f"Mara, scores {scores}."} for row, scores in zip(response_rows(0, WORTHS), MIXED, strict=True)
    ]
    config = settings(stub, tmp_path, question_rows(1), responses, longreward=RACING)
    result = await generate(config)
    assert (result.summary["scored"], result.summary["given_up"]) == (2, 4)
    path, made = tmp_path / "run/scored_responses.jsonl", stub.chats
    whole = path.read_text(encoding="utf-8")
    path.write_text("".join(whole.splitlines(keepends=True)[:kept]), encoding="utf-8")
    again = await generate(config)
    assert path.read_text(encoding="utf-8") == whole and stub.chats == made
    assert again.summary["given_up"] == 4


def test_racing_and_several_pairs_are_refused(stub, tmp_path):
    data = {"longreward": RACING, "pairs": {"template": "smollm2", "per_question": 2}}
    with pytest.raises(ValueError, match=r"set pairs.per_question: 1 or longreward.racing: false"):
        settings(stub, tmp_path, question_rows(1), response_rows(0, WORTHS), **data)


def test_a_preset_fills_in_what_is_not_set():
    lean = LongRewardConfig(preset="lean")
    assert (lean.racing, lean.statements_per_call) == (True, 8)
    kept = LongRewardConfig(preset="lean", racing=False)
    assert (kept.racing, kept.statements_per_call) == (False, 8)
    paper = LongRewardConfig()
    assert (paper.preset, paper.racing, paper.statements_per_call) == ("paper", False, 1)
    assert LongRewardConfig.model_validate(lean.model_dump()) == lean


def test_the_estimate_knows_the_preset(stub, tmp_path):
    def calls(**longreward) -> dict[str, int]:
        answers = [
            row | {"answer": "One fact. Two facts. Three facts. Four facts."} for row in response_rows(0, WORTHS)
        ]
        config: GenerateConfig = settings(stub, tmp_path, question_rows(1), answers, longreward=longreward)
        return {row.stage: row.usage.calls for row in estimate(config)}

    paper, lean = calls(), calls(preset="lean")
    assert (paper["statements"], paper["faithfulness"]) == (6, 24)
    assert (lean["statements"], lean["faithfulness"]) == (2, 2) and lean["helpfulness"] == paper["helpfulness"] == 6


SEVERAL = JudgingConfig(chunk_size=256, evidence_chunk_size=32, statements_per_call=3)


async def test_statements_share_calls_and_a_missing_verdict_is_asked_alone(stub):
    """Five statements: three a call, then two. Statement 2 has no verdict, and 3 has two."""
    statements = "".join(f"<statement>Fact {number} .</statement>" for number in range(5))
    several = [
        "1: so it says [[Fully supported]]\n2: hm\n3: [[No support]]\n3: or [[Fully supported]]\n9: [[No support]]",
        "**1.** yes [[Partially supported]]\n2: no [[No support]]",
    ]

    def answer(prompt: str, seed: int) -> str:
        if "<claims>" in prompt:
            asked.append(prompt)
            return several[len(asked) - 1]
        return judge(prompt, seed)

    asked: list[str] = []
    judge, stub.answer = Judge(statements=statements), answer
    async with judge_on(stub, SEVERAL, max_concurrency=1) as longreward:
        result = await longreward.score(EN, "Who lit the lamp?", "Mara did.")
    assert len(asked) == 2 and judge.count()["faithfulness"] == 2
    alone = [prompt for stage, prompt in judge.asked if stage == "faithfulness"]
    assert sorted(re.search(r"Fact (\d)", prompt)[1] for prompt in alone) == ["1", "2"]
    levels = [1, 1, 1, 0.5, 0]
    details = result.details["faithfulness"]
    assert details["facts"] == {f"Fact {number} .": level for number, level in enumerate(levels)}
    assert details["details"][0]["analysis"] == "1: so it says [[Fully supported]]"
    assert all(len(detail["evidences"]) == 5 for detail in details["details"])
    assert result.scores["faithfulness"] == pytest.approx(7)


async def test_statements_with_brackets_are_asked_alone(stub):
    """A line of the reply could quote their brackets."""
    statements = "<statement>It says [[No support]].</statement><statement>Mara lit it.</statement>"
    judge = stub.answer = Judge(statements=statements)
    async with judge_on(stub, SEVERAL) as longreward:
        await longreward.score(EN, "Who lit the lamp?", "Mara did.")
    assert judge.count()["faithfulness"] == 2


@pytest.mark.parametrize(
    ("reply", "levels"),
    [
        ("1: a [[Fully supported]]\n2: b [[No support]]", {1: 1, 2: 0}),
        ("Claim 1: a [[Supported]]\n说法 2：[[不支持]]", {1: 1, 2: 0}),
        ("- 1) [[Partially supported]]\n\nSo much. [[No support]]", {1: 0.5}),
        ("0: [[No support]]\n3: [[No support]]\n12345: [[No support]]", {}),
        ("1: [[good]]\n2: [[No support", {}),
        ("1: a\n1: [[No support]]\n2 [[No support]]", {}),
        ("1: a [[Fully supported]] 2: b [[No support]]", {}),
        ("", {}),
    ],
)
def test_levels_of_several_statements(reply, levels):
    assert {number: level for number, (level, _) in support_levels(reply, 2).items()} == levels


def test_expected_values_need_one_statement_a_call(stub):
    with pytest.raises(UserError, match=r"set longreward.statements_per_call: 1 or longreward.rating: parsed"):
        judge_on(stub, SEVERAL.model_copy(update={"rating": "expected"}))


async def test_equal_statements_of_several_responses_are_asked_once(stub, tmp_path):
    judge = stub.answer = Judge(helpfulness=by_worth)  # all responses have the same two statements
    await generate(settings(stub, tmp_path, question_rows(2), response_rows(0, WORTHS) + response_rows(1, WORTHS)))
    assert judge.count()["statements"] == 12 and judge.count()["faithfulness"] == 2 * 2
