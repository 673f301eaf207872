"""All recipes of one method for one model, from generation to serving, for any model that LLaMA-Factory knows.

They are the shipped recipes with another model, so that every comment is written once. Paragraphs about figures of the
paper or of the shipped model (`_OWN`) are removed, and so is the line that names a schema.
"""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from lf_longpo.config.shipped import shipped_folder
from lf_longpo.errors import UserError
from lf_longpo.plugin.compat import thought_marks

# What the shipped recipes of this family say, and a recipe for another model does not.
_FAMILY, _MODEL, _TEMPLATE = "qwen3", "Qwen/Qwen3-4B-Instruct-2507", "qwen3_nothink"
_OWN = re.compile(r"# yaml-language-server: .*\n|### (?:Source|Memory): .*\n(?:###  .*\n)*")
# The model of the evaluation recipes.
_EVALUATED = "meta-llama/Llama-3.1-8B-Instruct"
_COMMENT_COLUMN = 38
_COMMENTED = re.compile(r"^( *[^#\s].*?) +# (.*)$", re.MULTILINE)
_LAUNCH = re.compile(r"^### Launch: +(.*?)(?:   \(.*)?$", re.MULTILINE)

_RECIPES = {
    "longmab": ("qwen3_longmab.yaml", "longqa.yaml", "qwen3_dpo.yaml", "qwen3_export.yaml", "qwen3_serve.yaml"),
    # Training changes all parameters, so there is nothing to export.
    "longreward": ("qwen3_longreward.yaml", "longbench.yaml", "qwen3_longreward_dpo.yaml", "qwen3_serve.yaml"),
}
# For a model that thinks: what follows the calls in flight of the policy.
_AFTER = re.compile(r"^  max_concurrency: .*\n", re.MULTILINE)
_THINKING = """\
  thinking_tokens: 4096               # tokens for a thought, on top of max_new_tokens; 0 if the model does not think
  # To switch thinking off (Qwen3, GLM-4.5), remove the # below, and set enable_thinking: false in the training recipe.
  # extra_body: {chat_template_kwargs: {enable_thinking: false}}
"""
_DEEPSPEED = {"longmab": "ds_z2.json", "longreward": "ds_z3.json"}
METHODS = tuple(_RECIPES)


class RecipeFile(NamedTuple):
    """A recipe that was written."""

    path: Path
    launch: str
    """The command that its header gives."""


def write_recipes(model: str, method: str, template: str | None, folder: Path) -> list[RecipeFile]:
    """Writes the recipes of a method for a model, named after it, and the DeepSpeed settings that they use.

    Args:
        model: a hub name or a folder.
        method: one of `METHODS`.
        template: LLaMA-Factory's chat template. Default: that of the model in LLaMA-Factory's own table.
        folder: where to; its files stay as they are.

    Returns:
        The recipes in the order in which they are used.

    Raises:
        UserError: LLaMA-Factory has no such template or none for the model, or a file exists; nothing was written.
    """
    prefix = re.sub(r"[^a-z0-9]+", "_", Path(model).name.lower()).strip("_")
    if not prefix:
        raise UserError(f"--model: {model!r} names no model; name a folder or a model on the hub")
    names = {name: folder / f"{prefix}_{name.removeprefix(f'{_FAMILY}_')}" for name in _RECIPES[method]}
    settings = folder / f"{prefix}_{_DEEPSPEED[method]}"
    for path in (*names.values(), settings):
        if path.exists():
            raise _exists(path)
    if template is None:
        template = default_template(model)
    thinks = _thinks(template)
    replaced = _replaced(model, method, template, prefix)
    texts = {path: _adapted(_shipped(name), replaced) for name, path in names.items()}
    if thinks:
        generation = next(iter(texts))
        texts[generation] = _AFTER.sub(lambda line: line[0] + _THINKING, texts[generation], count=1)
    _write_new(texts | {settings: _shipped(f"deepspeed/{_DEEPSPEED[method]}")})
    return [RecipeFile(path, _LAUNCH.findall(text)[0]) for path, text in texts.items()]


def default_template(model: str) -> str:
    """The template of a model by LLaMA-Factory's table.

    Raises:
        UserError: the model is not in it, or is a base model, which has none.
    """
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS

    templates: dict[str, str] = {
        path: DEFAULT_TEMPLATE[name]
        for name, paths in SUPPORTED_MODELS.items()
        if DEFAULT_TEMPLATE.get(name)
        for path in paths.values()
    }
    if model in templates:
        return templates[model]
    near = get_close_matches(model, templates, n=1)
    example = f", such as {templates[near[0]]}, which it has for {near[0]}" if near else ""
    raise UserError(f"--model: LLaMA-Factory's table has no template for {model}; add --template NAME{example}")


def _thinks(template: str) -> bool:
    """Whether models of a template think before they answer.

    Raises:
        UserError: LLaMA-Factory has no such template.
    """
    from llamafactory.data.template import TEMPLATES

    if template not in TEMPLATES:
        near = get_close_matches(template, TEMPLATES, n=1) or ["llama3"]
        raise UserError(
            f"--template: LLaMA-Factory has no template {template}; name one that it has, such as {near[0]}"
        )
    return thought_marks(TEMPLATES[template]) is not None


def _shipped(name: str) -> str:
    """The text of a shipped recipe, or of a file of DeepSpeed settings."""
    return (shipped_folder() / "yaml" / name).read_text(encoding="utf-8")


def _replaced(model: str, method: str, template: str, prefix: str) -> dict[str, str]:
    """Texts of the shipped recipes, and what replaces them."""
    replaced = {
        _MODEL: model,
        _EVALUATED: model,
        _TEMPLATE: template,
        f"{_FAMILY}_": f"{prefix}_",
        f"yaml/{_FAMILY}_": f"{prefix}_",
        "yaml/deepspeed/": f"{prefix}_",
    }
    for benchmark in ("longqa", "longbench"):
        replaced |= {f"yaml/{benchmark}.": f"{prefix}_{benchmark}.", f"runs/{benchmark}": f"runs/{prefix}_{benchmark}"}
    if method == "longreward":  # starts from the model itself, and serves what training wrote
        replaced |= {
            f"the model of yaml/{_FAMILY}_longreward_sft.yaml": model,
            f"saves/{_FAMILY}_longreward_sft": model,
            f"{_FAMILY}_longreward_sft": model,
            f"yaml/{_FAMILY}_export.yaml": f"{prefix}_longreward_dpo.yaml",
            f"saves/{_FAMILY}_longmab_merged": f"saves/{prefix}_longreward_dpo",
            "export_dir of the export recipe": "output_dir of the training recipe",
            "the model is exported": "the model is trained",
            "longqa yaml/longqa.yaml": f"longbench {prefix}_longbench.yaml",
        }
    return replaced


def _adapted(text: str, replaced: dict[str, str]) -> str:
    longest_first = sorted(replaced, key=len, reverse=True)
    text = re.sub("|".join(map(re.escape, longest_first)), lambda found: replaced[found[0]], _OWN.sub("", text))
    return _COMMENTED.sub(lambda line: f"{line[1]:<{_COMMENT_COLUMN - 2}}  # {line[2]}", text)


def _write_new(texts: dict[Path, str]) -> None:
    """Writes all files or none."""
    written = []
    try:
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except BaseException as error:
        for path in written:
            path.unlink()
        raise (_exists(path) if isinstance(error, FileExistsError) else error) from None


def _exists(path: Path) -> UserError:
    return UserError(f"{path} exists, and nothing was written; move it away, or run longpo init in another folder")
