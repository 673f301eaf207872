"""The order of the package's rooms: a module imports only rooms below its own, and no two modules need each other.

Imports inside functions count as well, and so do those for type checkers only.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "lf_longpo"
# Top floor first. Rooms of one floor do not import each other.
FLOORS = (
    ("cli",),
    ("viewer", "export"),
    ("generation",),
    ("report",),
    ("run_folder",),
    ("longmab", "longreward"),
    ("synthesis", "evaluation"),
    ("judging",),
    ("plugin",),
    ("engine",),
    ("models",),
    ("data",),
    ("files",),
    ("config",),
    ("text",),
    ("aio",),
    ("errors",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Modules of the package itself, without a floor: the version, and `python -m lf_longpo`.
ENTRIES = ("lf_longpo", "lf_longpo.__main__")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str) -> set[str]:
    """The modules of the package that a source imports, at its top or later."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {node.module}
    return {name for name in found if name.split(".")[0] == "lf_longpo"}


def wrong_ways(module: str, source: str) -> list[str]:
    """The imports of a module that lead up, or across a floor."""
    room = module.split(".")[1]
    wrong = []
    for name in imports(source) - {"lf_longpo"}:
        other = name.split(".")[1]
        if other != room and FLOOR[other] <= FLOOR[room]:
            wrong.append(f"{module} imports {name}")
    return sorted(wrong)


def test_every_module_is_in_a_room():
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.name[0] != "_"}
    assert rooms - {"py"} == set(FLOOR)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py", "aio.py"}


def test_imports_lead_down():
    wrong = [
        line
        for module, path in MODULES.items()
        if module not in ENTRIES
        for line in wrong_ways(module, path.read_text())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    (
        "from lf_longpo.engine import session",
        "import lf_longpo.report.page",
        "def late():\n    from lf_longpo.longmab.bandit import UCBChunkSampler",
        "if TYPE_CHECKING:\n    from lf_longpo.cli import main",
    ),
)
def test_an_import_that_leads_up_is_found(source):
    assert len(wrong_ways("lf_longpo.models.calls", source)) == 1


def test_neither_method_knows_the_other():
    assert wrong_ways("lf_longpo.longmab.method", "from lf_longpo.longreward import judge")


def test_no_two_modules_need_each_other():
    graph = {module: imports(path.read_text()) - {module} for module, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the modules of a cycle


def test_two_files_share_a_name_only_for_the_same_job():
    shared = {
        "plan", "method", "estimate", "pairing",  # one of each method
    }  # fmt: skip
    paths = [path for path in MODULES.values() if path.stem not in ("__init__", "__main__")]
    names = [path.stem for path in paths]
    repeated = sorted({name for name in names if names.count(name) > 1} - shared)
    assert not repeated, repeated


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{module}.{node.name}: {lines} lines"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := node.end_lineno - node.lineno + 1) > 60
    ]
    assert not long, "\n".join(long)
