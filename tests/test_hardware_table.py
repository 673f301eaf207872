"""The pages have the rows that scripts/hardware_table.py and scripts/long_context_table.py print."""

import importlib.util

import pytest
from conftest import REPOSITORY


def load(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "scripts")
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load("hardware_table")


@pytest.mark.parametrize("method", ["LoRA", "All parameters"])
def test_the_page_has_the_rows_of_the_script(script, method):
    page = (REPOSITORY / "docs/hardware.md").read_text(encoding="utf-8")
    sections = {
        gpus: section
        for section in page.split("\n### ")
        for gpus in script.GPUS
        if section.startswith(f"{method}, ") and str(gpus) in section.partition(" GPU")[0]
    }
    assert set(sections) == set(script.GPUS)
    for gpus, section in sections.items():
        for row in script.table_rows("Qwen3-4B", method, gpus):
            assert f"\n{row}\n" in section


def test_shapes_have_the_published_number_of_parameters(script):
    assert script.sizes("Qwen3-4B", "LoRA").parameters == 4_022_468_096
    assert script.sizes("SmolLM2-135M", "LoRA").parameters == 134_515_008


@pytest.mark.slow
@pytest.mark.parametrize("method", ["LoRA", "QLoRA", "All parameters"])
def test_the_page_of_the_trainer_has_the_rows_of_long_contexts(method):
    page = (REPOSITORY / "docs/long-context-dpo.md").read_text(encoding="utf-8")
    section = page.partition(f"\n#### {method}\n")[2].partition("\n#### ")[0]
    script = load("long_context_table")
    for name in ("Qwen2.5-7B", "GLM-4-9B-0414"):
        for row in script.rows(name, method):
            assert f"\n{row}\n" in section
