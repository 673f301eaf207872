"""A run on a Ray cluster of two nodes on this machine, one of which is lost on the way."""

import asyncio
import json
import threading
import time

import pytest
from stub import Stub
from test_engine import a_run

from lf_longpo.errors import UserError
from lf_longpo.generation.distributed import _shards, generate_on_ray
from lf_longpo.generation.generate import generate


@pytest.fixture(scope="module")
def key_for_nodes():
    from stub import KEY

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUB_KEY", KEY)
        yield


@pytest.mark.slow
def test_a_lost_node_changes_nothing(key_for_nodes, tmp_path):
    from ray.cluster_utils import Cluster

    with Stub() as stub:
        whole = asyncio.run(generate(a_run(stub, tmp_path / "alone", questions=40)))
        needed = stub.chats
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=2)
        with Stub(delay=0.1) as stub:
            config = a_run(stub, tmp_path / "cluster", questions=40)
            results = []
            run = threading.Thread(target=lambda: results.append(generate_on_ray(config, cluster.address)))
            run.start()
            while stub.chats < needed // 3:
                assert run.is_alive()
                time.sleep(0.02)
            cluster.remove_node(other, allow_graceful=False)
            run.join(300)
            (result,) = results
            # What was under way on the lost node is asked for again, and nothing else.
            assert needed <= stub.chats <= needed + 4
            again = generate_on_ray(config, cluster.address)
            assert stub.chats <= needed + 4
    finally:
        cluster.shutdown()
    for name in ("data/codes.jsonl", "run/pairs.jsonl"):
        assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes() != b""
    same = ("questions", "failed", "pairs", "left_out", "all_equal", "rollouts", "mean_reward", "mean_arms_tried")
    for name in same:
        assert result.summary[name] == again.summary[name] == pytest.approx(whole.summary[name]), name
    assert result.summary["calls"]["rollout"] == whole.summary["calls"]["rollout"]
    assert result.exit_code == again.exit_code == 0


@pytest.mark.slow
def test_what_a_cluster_cannot_keep_is_refused(key, tmp_path):
    with Stub() as stub:
        config = a_run(stub, tmp_path, price={"prompt": 1.0})
        with pytest.raises(UserError, match="max_cost"):
            generate_on_ray(config.model_copy(update={"max_cost": 1.0}), "local")
        asyncio.run(generate(config))
        with pytest.raises(UserError, match="began without --ray"):
            generate_on_ray(config, "local")


def ranges(shards):
    return [(shard.start, shard.end) for shard in shards]


def test_a_kill_before_the_first_shard_leaves_a_run_that_can_be_resumed(stub, tmp_path):
    config, folder = a_run(stub, tmp_path, questions=40), tmp_path / "run/shards"
    folder.mkdir(parents=True)  # killed right after that
    shards = _shards(config, folder, 40, workers=2)
    assert ranges(shards) == [(number * 5, number * 5 + 5) for number in range(8)]
    assert json.loads((folder / "shards.json").read_text()) == {"edges": list(range(0, 41, 5))}
    # Killed after that, and the cluster has another size now.
    assert ranges(_shards(config, folder, 40, workers=5)) == ranges(shards)
    with pytest.raises(UserError, match="began with other questions"):
        _shards(config, folder, 39, workers=2)
    (folder / "shards.json").write_text("[]")
    with pytest.raises(UserError, match=r"shards\.json does not hold the edges of the shards"):
        _shards(config, folder, 40, workers=2)


def test_shards_that_an_earlier_version_began_are_resumed(stub, tmp_path):
    config, folder = a_run(stub, tmp_path, questions=40), tmp_path / "run/shards"
    for name in ("00000000-00000020", "00000020-00000030"):
        (folder / name).mkdir(parents=True)  # killed before the last one was made
    assert len(_shards(config, folder, 40, workers=1)) == 4
    (folder / "shards.json").unlink()
    (folder / "00000030-00000040").mkdir()
    (folder / "00000020-00000030/probes.jsonl").touch()
    assert ranges(_shards(config, folder, 40, workers=1)) == [(0, 20), (20, 30), (30, 40)]
