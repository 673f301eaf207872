"""The wheel and the source distribution: what they hold, that a build can be repeated, and use outside the checkout."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import REPOSITORY

from lf_longpo import __version__

pytestmark = pytest.mark.slow


def checked(command, **options):
    """A finished command's output; its error output is shown where it fails."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def build(folder, **options):
    environment = os.environ | {"PYTHON": sys.executable}
    checked(["bash", str(REPOSITORY / "scripts/build.sh"), str(folder)], env=environment, **options)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built):
    return built[f"lf_longpo-{__version__}-py3-none-any.whl"]


def test_two_builds_are_equal(built, tmp_path):
    again = build(tmp_path / "dist", umask=0o077)
    assert again.keys() == built.keys() and len(built) == 2
    for name, path in built.items():
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again[name].read_bytes()).digest(), name


def tracked(*folders):
    return set(checked(["git", "ls-files", "--", *folders], cwd=REPOSITORY).splitlines())


def test_the_wheel_holds_the_package_and_the_recipes_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        recipes = tracked("yaml", "dataset_info")
        assert names == tracked("lf_longpo") | {f"lf_longpo/recipes_data/{name}" for name in recipes}
        for name in recipes:
            assert archive.read(f"lf_longpo/recipes_data/{name}") == (REPOSITORY / name).read_bytes()


def test_the_metadata_names_version_licence_and_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        folder = f"lf_longpo-{__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode().splitlines()
        assert {f"Version: {__version__}", "License-Expression: Apache-2.0", "Requires-Python: >=3.11"} <= set(metadata)
        assert "Requires-Dist: llamafactory==0.9.5" in metadata
        assert "longpo = lf_longpo.cli:main" in archive.read(f"{folder}/entry_points.txt").decode()
        assert archive.read(f"{folder}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()


def test_the_source_distribution_holds_what_a_wheel_is_built_from(built):
    root = f"lf_longpo-{__version__}"
    with tarfile.open(built[f"{root}.tar.gz"]) as archive:
        names = {name.removeprefix(f"{root}/") for name in archive.getnames()}
    needed = tracked("lf_longpo", "yaml", "dataset_info", "docs", "scripts", "tests")
    assert needed | {"pyproject.toml", "setup.py", "LICENSE", "README.md", "CHANGELOG.md"} <= names


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs `python -m MODULE ...` in an empty folder with the installed wheel instead of the checkout."""
    target, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target))
    checked([sys.executable, *pip, str(wheel)])
    environment = os.environ | {"PYTHONPATH": str(target)}

    def run(*arguments):
        return checked([sys.executable, *arguments], env=environment, cwd=folder)

    assert run("-c", "import lf_longpo; print(lf_longpo.__file__)").startswith(str(target))
    run.folder = folder
    return run


def test_recipes_are_listed_copied_and_priced_outside_the_checkout(installed):
    listed = [line.split()[0] for line in installed("-m", "lf_longpo", "recipes").splitlines()]
    assert listed == sorted(path.stem for path in (REPOSITORY / "yaml").glob("*.yaml"))
    installed("-m", "lf_longpo", "recipes", "copy", "smollm2_longmab", "smollm2_dpo")
    assert (installed.folder / "models/smollm2-135m/config.json").is_file()
    installed("-m", "lf_longpo.synthesis.demo", "runs/demo", "--train", "2", "--held-out", "1")
    for recipe in ("yaml/smollm2_longmab.yaml", "smollm2_longmab"):
        shown = installed("-m", "lf_longpo", "generate", recipe, "--estimate")
        assert "calls" in shown and not (installed.folder / "runs/smollm2_longmab").exists()


def test_pairs_are_made_trained_on_and_evaluated_outside_the_checkout(installed):
    longpo = ("-m", "lf_longpo")
    installed(*longpo, "recipes", "copy", "smollm2_longmab", "smollm2_dpo", "smollm2_longqa")
    demo = ("--train", "24", "--held-out", "2", "--people", "3", "3", "--one-hop", "--seed", "7")
    installed("-m", "lf_longpo.synthesis.demo", "runs/demo", *demo)
    installed(*longpo, "generate", "yaml/smollm2_longmab.yaml")
    assert (installed.folder / "dataset_info/smollm2_longmab_dpo.jsonl").read_text()
    installed(*longpo, "train", "yaml/smollm2_dpo.yaml", "max_steps=1")
    adapter = "model.adapter=saves/smollm2_longmab_dpo"
    installed(*longpo, "evaluate", "longqa", "yaml/smollm2_longqa.yaml", adapter, "output_dir=runs/after")
    assert json.loads((installed.folder / "runs/after/results.json").read_text())["questions"] == 2
