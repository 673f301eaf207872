"""Labelled preferences in the forms of published data sets."""

import pytest
from conftest import write_jsonl

from lf_longpo.config import EvaluateJudgeConfig
from lf_longpo.errors import UserError
from lf_longpo.evaluation.labelled_pairs import read_pairs


def config(*paths, mode="compare", **changes):
    judge = {"model": "m"}
    return EvaluateJudgeConfig(input=[str(path) for path in paths], output_dir="o", judge=judge, mode=mode, **changes)


def read(*paths, **changes):
    pairs = [pair for _, pair in read_pairs(config(*paths, **changes))]
    return [(pair.set, pair.id, pair.context, pair.question, pair.chosen, pair.rejected) for pair in pairs]


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        (
            {"id": 7, "context": "Text.", "query": "Why?", "chosen": "a", "rejected": "b"},
            ("pairs", "7", "Text.", "Why?", "a", "b"),
        ),
        (  # LongReward-10k
            {"idx": "x1", "context": "Text.", "query": "Why?", "win_response": "a", "lose_response": "b"},
            ("pairs", "x1", "Text.", "Why?", "a", "b"),
        ),
        (  # LongRewardBench
            {
                "id": 3,
                "prompt_template": [{"role": "user", "content": "Read this.\nText.\n\nWhy?\n"}],
                "question": "Why?",
                "chosen": "a",
                "rejected": "b",
                "subtask": "LongQA",
            },
            ("LongQA", "3", "Read this.\nText.", "Why?", "a", "b"),
        ),
        (  # RewardBench
            {"id": 5, "prompt": "Say hi.", "chosen": "a", "rejected": "b", "subset": "mt-bench-easy"},
            ("mt-bench-easy", "5", "", "Say hi.", "a", "b"),
        ),
        (  # our pairs
            {"id": "q", "input": "Why?", "prompt": "Text.\n\nWhy?", "chosen": "a", "rejected": "b", "answer": "c"},
            ("pairs", "q", "Text.", "Why?", "a", "b"),
        ),
    ],
)
def test_published_forms(tmp_path, row, pair):
    assert read(write_jsonl(tmp_path / "pairs.jsonl", [row])) == [pair]


def test_an_id_follows_from_the_texts(tmp_path):
    row = {"context": "Text.", "query": "Why?", "chosen": "a", "rejected": "b"}
    rows = [row, row | {"query": "Who?"}]
    first, second = (
        read(write_jsonl(tmp_path / name, order)) for name, order in (("a.jsonl", rows), ("b.jsonl", rows[::-1]))
    )
    assert len({pair[1] for pair in first}) == 2 and {pair[1] for pair in first} == {pair[1] for pair in second}


def test_scored_responses_give_the_best_and_the_worst(tmp_path):
    def scored(idx, answer, reward):
        return {"idx": idx, "query": "Why?", "answer": answer, "scores": {"total": 4 * reward}, "reward": reward}

    rows = [scored("q-a-0", "middle", 5.0), scored("q-a-1", "best", 8.0), scored("q-a-2", "worst", 2.0)]
    rows += [scored("q2-0", "same", 5.0), scored("q2-1", "as good", 5.0)]
    racing = {"scores": {"helpfulness": 6}, "not_scored": {"faithfulness": "cannot be best or worst"}}
    rows.append({"idx": "q-a-3", "query": "Why?", "answer": "given up"} | racing)
    path = write_jsonl(tmp_path / "scored_responses.jsonl", rows)
    contexts = [{"idx": id, "query": "Why?", "context": f"Text of {id}."} for id in ("q2", "q-a", "q3")]
    found = read(path, contexts=str(write_jsonl(tmp_path / "contexts.jsonl", contexts)))
    assert found == [("scored_responses", "q-a", "Text of q-a.", "Why?", "best", "worst")]
    with pytest.raises(UserError, match=r"contexts is missing: .*set contexts to the input of its run"):
        read(path)
    with pytest.raises(UserError, match=r"scored_responses.jsonl, line 2: .* has no question 'q-a'; set contexts"):
        read(path, contexts=str(write_jsonl(tmp_path / "others.jsonl", contexts[:1])))
    write_jsonl(path, [rows[0] | {"reward": "high"}])
    with pytest.raises(UserError, match="line 1: the field reward must be a number"):
        read(path, contexts=str(tmp_path / "contexts.jsonl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": None}, "line 1: the field chosen is empty; write it as text or remove the row"),
        ({"rejected": ["b", "c"]}, r"line 1: the field rejected is not text \(list\); write it as text"),
        ({"rejected": "a"}, "line 1: chosen and rejected are the same text; remove the row"),
        ({"query": ""}, "line 1: the field query is empty"),
        ({"context": ["a"]}, "line 1: the field context must be text, not list; join its passages"),
        ({"context": "", "mode": "score"}, "line 1: the field context is empty or missing, .*; add it, or set mode"),
        ({"context": "", "prompt": [{"role": "user"}]}, "line 1: the prompt must be text, or messages with role"),
    ],
)
def test_bad_rows(tmp_path, changes, message):
    row = {"context": "Text.", "query": "Why?", "chosen": "a", "rejected": "b"} | changes
    mode = row.pop("mode", "compare")
    with pytest.raises(UserError, match=message):
        read(write_jsonl(tmp_path / "pairs.jsonl", [row]), mode=mode)
    with pytest.raises(UserError, match=r"line 1: the field chosen \(or win_response\) is missing; add it"):
        read(write_jsonl(tmp_path / "pairs.jsonl", [{"query": "Why?", "rejected": "b"}]))
