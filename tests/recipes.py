"""The shipped training recipes with what a test machine has: a tiny random model, rows of our own, and CPUs."""

import json
from pathlib import Path

import yaml
from conftest import REPOSITORY, write_jsonl

from lf_longpo.plugin.registry import load_dataset_info

FAMILIES = ("llama3", "qwen2", "glm4", "qwen3", "glm4_0414")


def family_of(path: Path) -> str | None:
    """The family of a recipe by its file's name, such as glm4_0414 of glm4_0414_dpo.yaml; None for other files."""
    return max((family for family in FAMILIES if path.stem.startswith(f"{family}_")), key=len, default=None)


TRAINING = sorted(
    path
    for path in (REPOSITORY / "yaml").glob("*.yaml")
    if family_of(path) and yaml.safe_load(path.read_text()).get("do_train")
)


def data_folder(folder: Path, name: str) -> Path:
    """The recipe's data set under its own name and columns, with 24 rows of our own."""
    entry = load_dataset_info(REPOSITORY / "dataset_info").get(name) or {
        "ranking": True,
        "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    }
    entry = {key: value for key, value in entry.items() if key not in ("hf_hub_url", "split")}
    rows = []
    for number in range(24):
        texts = {
            "context": f"Lamp {number} hangs in the tower. " * 8,
            "query": "Where is it?",
            "answer": "In the tower.",
        }
        texts |= {"win_response": "In the tower.", "lose_response": "I do not know."}
        texts |= {"prompt": f"Where is lamp {number}?", "chosen": "In the tower.", "rejected": "I do not know."}
        rows.append({column: texts[column] for column in entry["columns"].values()})
    write_jsonl(folder / "rows.jsonl", rows)
    (folder / "dataset_info.json").write_text(json.dumps({name: entry | {"file_name": "rows.jsonl"}}))
    return folder


def small(path: Path, model: Path, folder: Path) -> dict[str, str]:
    """What to change in a recipe so that it runs here: the model, the data and the machine, nothing else."""
    recipe = yaml.safe_load(path.read_text())
    changes = {
        "model_name_or_path": str(model),
        "dataset_dir": str(data_folder(folder, recipe["dataset"])),
        "cutoff_len": "512",
        "preprocessing_num_workers": "1",
        "dataloader_num_workers": "0",
        "bf16": "false",
        "enable_liger_kernel": "false",
        "plot_loss": "false",
        "output_dir": str(folder / "out"),
    }
    if recipe.get("use_unsloth_gc"):  # LLaMA-Factory's own needs a GPU
        changes["use_unsloth_gc"] = "false"
    return changes | ({"ref_model": str(model)} if "ref_model" in recipe else {})
