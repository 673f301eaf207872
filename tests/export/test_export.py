"""`longpo export`: the trainers of TRL and LLaMA-Factory load what it writes."""

import json
import os
from pathlib import Path

import pytest
import yaml
from conftest import code_questions, judged, run_settings, write_jsonl
from stub import Stub

from lf_longpo.cli import main
from lf_longpo.data.review import Decision, Reviews, decisions_of, pair_digest


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A LongMab-PO run and a LongReward run."""
    folders = {}
    os.environ["STUB_KEY"] = "stub-key-that-must-not-leak"
    for method in ("longmab", "longreward"):
        folder = tmp_path_factory.mktemp(method)
        with Stub(judged) if method == "longreward" else Stub() as stub:
            settings = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(8))) | {
                "method": method
            }
            if method == "longreward":
                del settings["longmab"]
                settings |= {"judge": settings["policy"], "longreward": {"num_samples": 4, "min_responses": 2}}
            (folder / "c.yaml").write_text(yaml.safe_dump(settings))
            assert main(["generate", str(folder / "c.yaml")]) == 0
        folders[method] = folder
    del os.environ["STUB_KEY"]
    return folders


@pytest.mark.slow
def test_kto_has_all_responses_that_differ_and_both_labels(runs, tmp_path, capsys):
    for method, name in (("longmab", "rollouts"), ("longreward", "scored_responses")):
        target = tmp_path / f"{method}.jsonl"
        assert main(["export", str(runs[method] / "run"), str(target), "--to", "kto"]) == 0
        rows, made = rows_of(target), rows_of(runs[method] / f"run/{name}.jsonl")
        assert {row["label"] for row in rows} == {True, False}
        by_question = {}
        for row in rows:
            by_question.setdefault(row["id"], []).append(row)
        for id, its in by_question.items():
            texts = {
                one.get("output", one.get("answer"))
                for one in made
                if one.get("id", one.get("idx", "")).split("-")[0] == id
            }
            assert {row["completion"] for row in its} == texts
            best = [row["reward"] for row in its if row["label"]]
            assert min(best) > max(row["reward"] for row in its if not row["label"])
            assert len({row["prompt"] for row in its}) == 1
        # More than the extremes that pairs are made of.
        pairs = rows_of(runs[method] / "data/codes.jsonl")
        assert set(by_question) == {pair["id"] for pair in pairs} and len(rows) >= 2 * len(pairs)
    assert (
        main(["export", str(runs["longmab"] / "run"), str(tmp_path / "x.jsonl"), "--to", "kto", "--threshold", "2"])
        == 2
    )
    assert "no response is desirable" in capsys.readouterr().err and not (tmp_path / "x.jsonl").exists()


@pytest.mark.slow
def test_trl_prepares_what_is_exported(runs, tmp_path, models):
    import llamafactory.train.dpo.trainer  # noqa: F401  TRL alone does not import with this transformers
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    from lf_longpo.models.embedded import model_path

    tokenizer = AutoTokenizer.from_pretrained(model_path("smollm2-135m"))
    model = AutoModelForCausalLM.from_pretrained(model_path("smollm2-135m"))
    model.warnings_issued = {}  # this TRL wants what transformers had until its version 5
    common = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "report_to": [], "bf16": False}
    for form, suffix in (("trl-dpo", ".jsonl"), ("trl-dpo", ".parquet"), ("trl-kto", ".jsonl")):
        target = tmp_path / f"{form}{suffix}"
        assert main(["export", str(runs["longmab"] / "run"), str(target), "--to", form]) == 0
        data = load_dataset(suffix[1:].replace("jsonl", "json"), data_files=str(target), split="train")
        if form == "trl-dpo":
            arguments = DPOConfig(max_length=2048, max_prompt_length=1900, **common)
            trainer = DPOTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer)
            first = trainer.train_dataset[0]
            assert tokenizer.decode(first["prompt_input_ids"]).count("<|im_start|>user") == 1
            assert tokenizer.decode(first["chosen_input_ids"]).startswith(
                rows_of(tmp_path / "trl-dpo.jsonl")[0]["chosen"][0]["content"]
            )
        else:
            arguments = KTOConfig(max_length=2048, max_prompt_length=1900, per_device_train_batch_size=2, **common)
            trainer = KTOTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer)
            first = trainer.train_dataset[0]
            assert "<|im_start|>user" in tokenizer.decode(first["prompt_input_ids"])
        assert len(trainer.train_dataset) == len(data)


@pytest.mark.slow
def test_llamafactory_loads_kto(runs, tmp_path):
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    from lf_longpo.models.embedded import model_path

    target = tmp_path / "data/all.jsonl"
    run = str(runs["longreward"] / "run")
    command = ["export", run, str(target), "--to", "kto", "--register", "all", "--dataset-dir", str(tmp_path / "data")]
    assert main(command) == 0
    recipe = {
        "model_name_or_path": str(model_path("smollm2-135m")), "stage": "kto", "do_train": True,
        "finetuning_type": "lora", "dataset": "all", "dataset_dir": str(tmp_path / "data"), "template": "smollm2",
        "cutoff_len": 1024, "output_dir": str(tmp_path / "out"), "bf16": False, "report_to": "none", "use_cpu": True,
        "preprocessing_num_workers": 1,
    }  # fmt: skip
    model_args, data_args, training_args, *_ = get_train_args(recipe)
    tokenizer_module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokenizer_module["tokenizer"], data_args)
    dataset = get_dataset(template, model_args, data_args, training_args, stage="kto", **tokenizer_module)[
        "train_dataset"
    ]
    assert len(dataset) == len(rows_of(target)) and set(dataset["kto_tags"]) == {True, False}


def test_rows_that_are_not_pairs_are_refused_together(tmp_path, capsys):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "a"}, 7]
    source = write_jsonl(tmp_path / "p.jsonl", rows)
    assert main(["export", str(source), str(tmp_path / "out.jsonl")]) == 2
    said = capsys.readouterr().err
    assert "2 pairs cannot be used" in said and f"{source}, line 2: the field rejected is missing" in said


def test_a_pair_with_half_a_character_can_be_rejected_in_review(tmp_path, capsys):
    rows = [{"prompt": f"p{n}", "chosen": "a \ud83d" if n == 1 else "a", "rejected": "b"} for n in range(3)]
    source = write_jsonl(tmp_path / "p.jsonl", rows)
    reviews = Reviews(decisions_of(source))
    columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    reviews.decide(pair_digest(rows[0], columns), "0", Decision("accept"))
    reviews.close()
    export = ["export", str(source), str(tmp_path / "out.parquet"), "--reviewed"]
    assert main(export) == 2
    assert f"{source}, line 2: the field chosen holds \\ud83d" in capsys.readouterr().err
    reviews = Reviews(decisions_of(source))
    reviews.decide(pair_digest(rows[1], columns), "1", Decision("reject"))
    reviews.close()
    assert main(export) == 0


def test_what_cannot_be_exported_is_an_error(runs, tmp_path, capsys, monkeypatch):
    run, data = str(runs["longmab"] / "run"), runs["longmab"] / "data"
    out = str(tmp_path / "out.jsonl")
    for command, said in (
        (["export", str(data / "codes.jsonl"), out, "--to", "kto"], "name the run's folder"),
        (["export", run, str(tmp_path / "out.csv")], "must end in .jsonl or .parquet"),
        (["export", "nothing", out], "no run, file or data set 'nothing'"),
        (["export", run, out, "--threshold", "1"], "--threshold applies to --to kto"),
        (["export", run, out, "--reviewed"], "holds no decision"),
        (["export", str(data / "codes.jsonl"), str(data / "codes.jsonl")], "is the data set itself"),
        (["export", run, out, "--register", "x"], "--register needs --to kto"),
    ):
        assert main(command) == 2
        assert said in capsys.readouterr().err and not Path(out).exists()


def test_an_upload_carries_the_file_and_a_card_made_of_the_run(runs, tmp_path, capsys, monkeypatch):
    import huggingface_hub

    uploaded = {}

    class Hub:  # the edge: no hub is in reach
        def create_repo(self, repository, repo_type, private, exist_ok):
            assert (repo_type, private, exist_ok) == ("dataset", True, True)
            return f"https://hub/{repository}"

        def upload_file(self, path_or_fileobj, path_in_repo, repo_id, repo_type):
            uploaded[path_in_repo] = Path(path_or_fileobj).read_bytes()

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    target = tmp_path / "pairs.parquet"
    command = ["export", str(runs["longreward"] / "run"), str(target), "--push-to-hub", "org/pairs", "--private"]
    assert main(command) == 0
    assert uploaded["pairs.parquet"] == target.read_bytes() and "https://hub/org/pairs" in capsys.readouterr().out
    card = uploaded["README.md"].decode()
    assert "LongReward" in card and "num_samples: 4" in card and "data_files: pairs.parquet" in card
    assert str(tmp_path) not in card and str(runs["longreward"]) not in card and "STUB_KEY" not in card
