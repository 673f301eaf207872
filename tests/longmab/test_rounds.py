"""When a question needs no further round."""

import pytest

from lf_longpo.config import GenerateConfig
from lf_longpo.data.records import Question, Rollout
from lf_longpo.longmab.rounds import Rounds

QUESTION = Question("q", "Who?", ("the blue whale",), "")
RIGHT, PARTLY, WRONG = "Answer: the blue whale", "Answer: a whale", "Answer: nobody"
LONGER = "The sea. " * 9 + RIGHT


def config_of(pairs=None, **longmab):
    return GenerateConfig.model_validate(
        {
            "method": "longmab",
            "input": "q.jsonl",
            "output_dir": "run",
            "dataset_name": "d",
            "policy": {"model": "m", "base_url": "http://localhost/v1"},
            "longmab": longmab,
            "pairs": {"template": "llama3", **(pairs or {})},
        }
    )


def rollouts_of(*outputs, truncated=()):
    return {i: Rollout("q", i, [0], text, 0.0, [0.0], i in truncated) for i, text in enumerate(outputs)}


def rounds_made(finished, **settings):
    rounds = Rounds(QUESTION, config_of(**settings)).replay(finished)
    return len(rounds.rollouts), rounds.ended


@pytest.mark.parametrize(
    ("outputs", "settings", "made"),
    [
        ([WRONG, RIGHT, WRONG], {"stop": 1.0}, (2, True)),
        ([RIGHT, RIGHT, WRONG, WRONG], {"stop": 1.0}, (3, True)),
        ([WRONG, PARTLY, WRONG, RIGHT, WRONG], {"stop": 1.0}, (4, True)),
        ([WRONG, PARTLY, WRONG, RIGHT, WRONG], {"stop": 0.2}, (2, True)),
        ([WRONG, RIGHT, WRONG], {"stop": None}, (3, False)),
        ([WRONG, RIGHT, WRONG], {"rounds": 3}, (3, True)),
        ([WRONG, WRONG], {"stop": 1.0}, (2, False)),
        ([WRONG, RIGHT, WRONG, RIGHT, WRONG, WRONG], {"stop": 1.0, "pairs": {"per_question": 2}}, (6, False)),
        ([WRONG, RIGHT, "Answer: him", LONGER, WRONG], {"stop": 1.0, "pairs": {"per_question": 2}}, (4, True)),
        ([WRONG, PARTLY, RIGHT], {"stop": 0.2, "pairs": {"min_gap": 0.9}}, (3, True)),
    ],
)
def test_a_question_ends_when_it_has_its_pairs(outputs, settings, made):
    assert rounds_made(rollouts_of(*outputs), **settings) == made


def test_a_truncated_response_ends_no_question_unless_it_may_train():
    finished = rollouts_of(WRONG, RIGHT, WRONG, truncated={1})
    assert rounds_made(finished, stop=1.0) == (3, False)
    assert rounds_made(finished, stop=1.0, pairs={"allow_truncated": True}) == (2, True)


def test_a_missing_round_is_not_skipped():
    finished = rollouts_of(WRONG, WRONG, RIGHT)
    del finished[1]
    assert rounds_made(finished, stop=1.0) == (1, False)


def test_the_pair_is_that_of_the_same_rounds_without_an_early_end():
    finished = rollouts_of(WRONG, PARTLY, RIGHT, WRONG)
    early = Rounds(QUESTION, config_of(stop=1.0)).replay(finished)
    plain = Rounds(QUESTION, config_of()).replay({i: finished[i] for i in range(3)})
    assert early.pairs() == plain.pairs()
    ((chosen, rejected),) = early.pairs()
    assert (chosen.index, rejected.index) == (2, 0)


def test_a_preset_fills_in_what_is_not_set():
    assert config_of().longmab == config_of(preset="paper").longmab
    lean = config_of(preset="lean", top_k=2).longmab
    assert (lean.stop, lean.selection, lean.top_k, lean.rounds) == (1.0, "linear", 2, 30)
    assert config_of(preset="lean", stop=None).longmab.stop is None
    resolved = lean.model_dump(mode="json")
    assert type(lean).model_validate(resolved | {"preset": "paper"}).stop == 1.0
