"""The bandit of LongMab-PO, compared with the published code."""

import pytest
from reference_vectors import needs_vectors, vectors

from lf_longpo.longmab.bandit import LinearChunkSampler, UCBChunkSampler


@needs_vectors
def test_bandit_equals_the_published_code():
    rows = vectors("longmab_bandit.jsonl")
    assert len(rows) == 40
    for row in rows:
        sampler = UCBChunkSampler(row["initial_values"])
        for expected, reward in zip(row["selected"], row["rewards"], strict=True):
            selected = sampler.select(row["top_k"])
            assert set(selected) == set(expected)
            sampler.update(selected, reward)
        assert sampler.values == pytest.approx(row["final_values"], abs=1e-9)
        assert sampler.counts.tolist() == row["final_counts"]


def test_bandit_takes_all_arms_if_there_are_fewer_than_top_k():
    assert UCBChunkSampler([0.3, 0.1]).select(4) == [0, 1]


def test_bandit_returns_to_the_arm_with_rewards():
    sampler = UCBChunkSampler([0.5, 0.5, 0.5])
    for _ in range(60):
        arms = sampler.select(1)
        sampler.update(arms, 1.0 if arms == [1] else 0.0)
    assert sampler.counts.argmax() == 1


def test_the_linear_model_gives_credit_to_the_chunk_that_earns_it():
    sampler = LinearChunkSampler([0.5] * 6)
    for arms, reward in (([0, 1], 1.0), ([1, 2], 0.0), ([0, 3], 1.0), ([3, 4], 0.0)):
        sampler.update(arms, reward)
    assert sampler.values.argmax() == 0 and sampler.values[3] < sampler.values[0] / 2
    assert 0 in sampler.select(2)


def test_the_linear_model_begins_with_the_first_values_and_looks_for_a_wrong_answer_after_a_right_one():
    sampler = LinearChunkSampler([0.1, 0.9, 0.2, 0.8])
    assert sampler.select(2) == [1, 3] and sampler.select(9) == [0, 1, 2, 3]
    sampler.update([1, 3], 1.0)
    assert sampler.select(2) == [0, 2]
    sampler.update([0, 2], 0.0)
    assert sampler.select(2) == [1, 3]
