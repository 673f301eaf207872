"""Rows split over processes: the same values, gradients and trainings, and what the user is told."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from prepared import Prepared
from split_training import CASES, differences
from test_train import recipe  # noqa: F401  the fixture

from lf_longpo.cli import main
from lf_longpo.errors import UserError
from lf_longpo.plugin.train.attention import pieces_of
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.parallel_choice import check_processes, reason_for_whole_rows
from lf_longpo.plugin.train.sequence_parallel import Exchange, _balanced

SMALL = (
    "qwen2, 3 heads, 1 key-value heads, lora",
    "llama3, zero3, full",
    "evaluation, 2 x 2, sft, lora",
    "resumed from P = 1, zero2, lora",
    "llama3, fsdp, full",
    "fsdp, P = 2, 3 heads, tiles, lora",
)


@pytest.mark.slow
def test_values_and_gradients_are_those_of_whole_rows(tmp_path):
    code = "import sys; sys.path.append('tests/plugin/train'); import sequence_cases; sequence_cases.main({}, 4, '{}')"
    processes = [
        Prepared([sys.executable, "-c", code.format(rank, tmp_path / "store")], tmp_path, merged=True)
        for rank in range(4)
    ]
    for rank, process in enumerate(processes):
        assert process.wait(600) == 0, process.stdout.read()
        assert f"process {rank}: all equal" in process.stdout.read()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_training_is_the_same(tmp_path, name):
    found = differences(CASES[name], tmp_path)
    assert {figure: difference for figure, difference in found.items() if not difference < CASES[name].tolerance} == {}


@pytest.mark.slow
def test_references_are_written_once_and_the_split_is_reported(recipe, tmp_path):  # noqa: F811
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe("llama3", max_steps=-1) | {"output_dir": str(tmp_path / "out")}))
    command = [sys.executable, "-m", "lf_longpo", "train", str(path), "--sequence-parallel", "2"]
    environment = os.environ | {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2", "LLAMAFACTORY_VERBOSITY": "WARN"}
    process = Prepared(command, tmp_path, environment, merged=True)
    assert process.wait(600) == 0, process.stdout.read()
    output = process.stdout.read()
    assert output.count("longpo train: each row split over 2 processes") == 1
    assert "training: 18 steps of 2 examples" in output  # three epochs of twelve pairs
    (journal,) = (tmp_path / "out/reference_logps").iterdir()
    ids = [json.loads(line)["id"] for line in journal.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 24  # two responses of each pair


def test_pieces_cover_the_row_and_balance_the_work():
    segments = [[1000, 300, 200], [0, 90, 70], [500, 40]]
    shares = [_balanced(segments, 4, index) for index in range(4)]
    rows = sorted(row for share in shares for piece in share for row in range(piece.start, piece.stop))
    assert rows == list(range(2200))

    def keys(piece):
        prompt = piece.prompt.stop - piece.prompt.start
        return sum(prompt + row - piece.first + 1 for row in range(piece.start, piece.stop))

    work = [sum(map(keys, share)) for share in shares]
    assert sum(work) == sum(map(keys, pieces_of(segments)))
    assert max(work) < 1.01 * min(work)


def test_bytes_of_an_exchange():
    qwen = Exchange(heads=28, key_heads=4, width=128, itemsize=2)
    # 4 processes: query, result, key and value, of which a quarter stays.
    assert qwen.layer_bytes(1000, 4) == (28 + 28 + 4 + 4) * 1000 * 128 * 2 * 3 // 4
    # 8 processes do not divide 28 heads: keys and values go to 7 others.
    assert qwen.layer_bytes(1000, 8) == (4 + 4) * 1000 * 128 * 2 * 7
    # 16 processes, 8 key-value heads: each is sent to two.
    assert Exchange(32, 8, 128, 2).layer_bytes(1000, 16) == (32 + 32 + 16 + 16) * 1000 * 128 * 2 * 15 // 16


@pytest.mark.parametrize(("processes", "counted"), [(4, "4 processes"), (1, "1 process")])
def test_processes_that_do_not_divide_into_groups_are_refused(monkeypatch, processes, counted):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(UserError, match=f"3: set --sequence-parallel to a divisor of the {counted}"):
        check_processes(3)
    check_processes(1)


def test_rotary_embeddings_that_depend_on_the_length_are_not_split():
    from transformers import LlamaConfig

    def reason(kind):
        rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
        return reason_for_whole_rows(SimpleNamespace(config=LlamaConfig(rope_parameters=rope)))

    assert reason("default") is None and reason("linear") is None
    assert "depends on the length of the row" in reason("dynamic")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stock", "--sequence-parallel", "2"], "Remove --stock or --sequence-parallel"),
        (["--sequence-parallel", "0"], "0 is neither auto nor a number of processes, such as 2"),
        (["--sequence-parallel", "two"], "two is neither auto nor a number of processes, such as 2"),
    ],
)
def test_values_that_make_no_sense_are_refused(recipe, tmp_path, capsys, words, message):  # noqa: F811
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe("llama3")))
    try:
        exit_code = main(["train", str(path), *words])
    except SystemExit as ended:
        exit_code = ended.code
    assert exit_code == 2 and message in capsys.readouterr().err


def test_options_reach_every_process():
    options = TrainOptions(sequence_parallel=4)
    assert TrainOptions.from_json(options.to_json()) == options


def test_a_batch_is_counted_once_a_group(tmp_path):
    from lf_longpo.plugin.train.step_progress import StepProgress

    said = []
    watch = StepProgress(SimpleNamespace(out=None, note=said.append))
    args = SimpleNamespace(train_batch_size=1, gradient_accumulation_steps=2, world_size=4)
    state = SimpleNamespace(global_step=0, max_steps=3)
    watch.on_train_begin(args, state, None, train_dataloader=SimpleNamespace(total_batch_size=2))
    assert said == ["training: 3 steps of 4 examples"]


def test_one_copy_of_each_group_is_gathered():
    from lf_longpo.plugin.compat import share_batches

    accelerator = SimpleNamespace(
        num_processes=4,
        process_index=3,
        prepare_data_loader=lambda loader: loader,
        gather=lambda tensor: torch.cat([tensor, tensor, tensor + 10, tensor + 10]),
    )
    share_batches(accelerator, 2)
    assert accelerator.gather(torch.tensor([1, 2])).tolist() == [1, 2, 11, 12]
    assert accelerator.gather(torch.zeros(3, 2)).shape == (6, 2)
