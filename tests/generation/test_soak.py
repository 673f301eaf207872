"""The short form of the soak."""

import pytest
from soak import soak


@pytest.mark.slow
def test_faults_and_kills_change_nothing(tmp_path):
    told = soak(tmp_path, questions=24, rounds=4, kill_every=4.0)
    assert len(told["faults"]) == 9 and told["kills"] >= 1
