"""The page of hardware has the rows that scripts/hardware_table.py prints."""

import importlib.util

import pytest
from conftest import REPOSITORY


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("hardware_table", REPOSITORY / "scripts/hardware_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
