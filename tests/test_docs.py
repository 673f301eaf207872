"""README and docs agree with the code: commands, settings and run files have entries, links and commands hold."""

import importlib.util
import io
import json
import random
import re
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, judged
from stub import MODEL, Stub

import lf_longpo.config as configs
from lf_longpo.cli import main
from lf_longpo.config.loading import load_config

READMES = [REPOSITORY / "README.md", REPOSITORY / "README_zh.md"]
DOCS = REPOSITORY / "docs"
PAGES = [*READMES, *sorted(DOCS.rglob("*.md"))]

# File names in the code that are no files of a run: those of models, recipes, services and templates.
_OTHERS = {
    "adapter_config.json",
    "base.html",
    "config.json",
    "decide.html",
    "end.html",
    "error.html",
    "list.html",
    "modules.json",
    "pair.html",
    "params.json",
    "question.html",
    "questions.html",
    "requests.jsonl",
    "tekken.json",
    "tokenizer.json",
    "trainer_log.jsonl",
    "trainer_state.json",
}


def _hook():
    spec = importlib.util.spec_from_file_location("docs_reference", REPOSITORY / "scripts/docs_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = _hook()
WRITTEN = {DOCS / "reference/commands.md": HOOK.commands_page(), DOCS / "reference/settings.md": HOOK.settings_page()}


def text_of(page: Path) -> str:
    return WRITTEN[page] if page in WRITTEN else page.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Those of headings, as GitHub and Python-Markdown make them, and those that are written out."""
    text = without_code(text)
    headings = (re.sub(r"[`*]", "", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    slugs = {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text)) | set(re.findall(r"\{ #([\w.]+) \}", text))


def blocks(page: Path) -> str:
    """The text of a page's bash blocks, a command a line."""
    return "\n".join(re.findall(r"```bash\n(.*?)```", text_of(page), re.DOTALL)).replace("\\\n", " ")


def commands(page: Path) -> list[list[str]]:
    """The words behind `longpo` of each command in a page's bash blocks."""
    lines = (re.sub(r"^([A-Z_]+=\S+\s+)+", "", line.strip()) for line in blocks(page).splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("longpo ")]


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_readme_is_short(page):
    text = text_of(page)
    assert len(text) <= 9000
    assert max(map(len, text.splitlines())) < 120


def test_readmes_show_the_same_commands():
    english, chinese = (commands(page) for page in READMES)
    assert english and english == chinese


@pytest.mark.parametrize("page", [*PAGES, *WRITTEN], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_hold(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() or target in WRITTEN, f"{link}: no such file"
        if page in READMES:
            assert target not in WRITTEN, f"{link} exists in the built site only"
        if anchor:
            assert anchor in anchors(text_of(target)), f"{link}: no such anchor"


def test_every_page_has_a_place_in_the_navigation():
    text = re.sub(r"!!python/name:\S+", "null", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    named = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert named == {page.relative_to(DOCS).as_posix() for page in {*DOCS.rglob("*.md"), *WRITTEN}}


def test_every_command_has_an_entry():
    page = WRITTEN[DOCS / "reference/commands.md"]
    parsers = list(HOOK.leaf_parsers(HOOK.make_parser()))
    assert {"longpo generate", "longpo evaluate compare", "longpo train"} <= {parser.prog for parser in parsers}
    for parser in parsers:
        section = page.partition(f"\n## {parser.prog}\n")[2].partition("\n## ")[0]
        for option in parser._option_string_actions:
            assert option in ("-h", "--help") or f"`{option}" in section or f", {option}`" in section, option


def test_every_setting_has_an_entry():
    page = WRITTEN[DOCS / "reference/settings.md"]
    shown = set(re.findall(r"#(\w+)\.\w+ \}", page))
    for kind in _all_kinds(configs.Config):
        if kind.__subclasses__() and kind.__name__ not in shown:
            continue  # a base: its settings are those of each kind below it
        for name in kind.model_fields:
            assert f"{{ #{kind.__name__}.{name} }}" in page, f"{kind.__name__}.{name}"


def _all_kinds(kind):
    for below in kind.__subclasses__():
        yield below
        yield from _all_kinds(below)


def test_every_recipe_has_an_entry():
    page = text_of(DOCS / "reference/recipes.md")
    names = {
        re.sub("^(llama3|qwen2|qwen3|glm4_0414|glm4)_", "MODEL_", path.name)
        for path in (REPOSITORY / "yaml").rglob("*.*")
        if path.parent.name != "schema"
    }
    assert "MODEL_dpo.yaml" in names
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_file_of_a_run_has_an_entry():
    page = text_of(DOCS / "reference/run-files.md")
    pattern = re.compile(r'"([a-z_]+\.(?:jsonl|json|sqlite|html|yaml|log|md))"')
    named = {name for path in (REPOSITORY / "lf_longpo").rglob("*.py") for name in pattern.findall(path.read_text())}
    assert {"pairs.jsonl", "calls.sqlite", "results.json", "report.html"} <= named
    recipes = {path.name for path in (REPOSITORY / "yaml").iterdir()}
    assert {name for name in named - _OTHERS - recipes if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_are_read(page):
    """Each `longpo` command of a page is parsed; its settings are checked if it names a recipe of the repository."""
    for words in (words for words in commands(page) if words != ["--help"]):
        options, rest = HOOK.make_parser().parse_known_args(words)
        assert not [word for word in rest if word.startswith("-")], words
        overrides = [*getattr(options, "overrides", []), *rest]
        command = " ".join(["longpo", *words[: 2 if words[0] in ("evaluate", "synthesize") else 1]])
        recipe = getattr(options, "config", None) or getattr(options, "recipe", None)
        if recipe is None or not recipe.startswith("yaml/") or recipe.startswith("yaml/my_"):
            continue  # the reader's own
        assert (REPOSITORY / recipe).is_file(), words
        if command in HOOK.CONFIGURATIONS:
            load_config(HOOK.CONFIGURATIONS[command], REPOSITORY / recipe, overrides)


def test_scripts_of_the_pages_exist():
    for page in PAGES:
        for script in re.findall(r"\b(?:bash|python) ((?:scripts|tests)/\S+?\.(?:sh|py))", text_of(page)):
            assert (REPOSITORY / script).is_file(), f"{page.name}: {script}"


def asked_rated_and_compared(prompt: str, seed: int) -> str:
    """The replies of a model that writes questions and answers, rates answers, and compares them."""
    if "Reply with the question" in prompt:
        return f"Question: What does the document say about word {seed % 1000}?"
    return "[[1]]" if "[[1]]" in prompt else judged(prompt, seed)


def served(section: str, url: str) -> list[str]:
    """The settings that send a section's calls to the stub."""
    name = "stub-embedder" if section == "embedder." else MODEL
    return [f"{section}base_url={url}", f"{section}api_key_env=STUB_KEY", f"{section}model={name}"]


@pytest.mark.slow
def test_the_tutorial_about_your_documents_runs_against_a_server(tmp_path, key, monkeypatch, capsys):
    """Its commands for a server, from documents to pairs, a win rate and an answer; a stub replaces the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("Who built the bridge?\n"))
    (tmp_path / "my_documents").mkdir()
    draw = random.Random(1)
    for name in ("bridge.md", *(f"d{number}.txt" for number in range(5))):
        text = " ".join(f"{draw.randrange(10**6)} drops fell." for _ in range(300))
        (tmp_path / "my_documents" / name).write_text(text)
    sections = {
        "synthesize self-instruct": ("model.",),
        "synthesize mix": (),
        "generate": ("policy.", "judge.", "embedder."),
        "evaluate winrate": ("model.", "against.", "judge."),
        "chat": ("",),
    }
    smaller = {
        "synthesize mix": ["held_out_questions=2"],
        "generate": ["pairs.template=smollm2", "longreward.num_samples=5"],
    }
    ran = []
    with Stub(asked_rated_and_compared) as server:
        for words in commands(DOCS / "tutorials/your-documents.md"):
            command = next((name for name in sections if " ".join(words).startswith(name)), None)
            if command is None or "smollm2" in " ".join(words):
                continue  # for a terminal or a GPU; or for the embedded model
            settings = [setting for section in sections[command] for setting in served(section, server.base_url)]
            ran.append(command)
            assert main([*words, *settings, *smaller.get(command, []), "tokenizer=smollm2-135m"]) == 0, words
    assert set(ran) == set(sections)
    assert len((tmp_path / "dataset_info/my_pairs.jsonl").read_text().splitlines()) >= 2
    assert json.loads((tmp_path / "runs/my_winrate/results.json").read_text())["questions"] >= 2
    assert re.search(r"^Word number \d+\.$", capsys.readouterr().out, re.MULTILINE)
