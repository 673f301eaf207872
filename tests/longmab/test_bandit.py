"""The bandit of LongMab-PO, compared with the published code."""

import pytest
from reference_vectors import needs_vectors, vectors

from lf_longpo.longmab.bandit import UCBChunkSampler


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
