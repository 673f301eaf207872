"""The recipe's tokenizer and template: whether they fit each other and the model."""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.errors import first_line
from lf_longpo.models.folders import is_path
from lf_longpo.plugin.check.findings import Findings, nearest
from lf_longpo.plugin.recipe import Arguments

if TYPE_CHECKING:
    from llamafactory.data.template import Template
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# The markers of turns in templates: <|im_end|>, <｜User｜>, <start_of_turn>, [gMASK].
_MARKER = re.compile(r"<[|｜][^<>\s]+?[|｜]>|<[a-z_]+>|\[gMASK\]")


class Encoding(NamedTuple):
    """Tokenizer and template of a run.

    Attributes:
        tokenizer: prepared by LLaMA-Factory for the template.
        processor: of a multi-modal model, else None.
        template: LLaMA-Factory's template.
    """

    tokenizer: "PreTrainedTokenizerBase"
    processor: Any
    template: "Template"


def load_model_config(run: Arguments, findings: Findings) -> "PretrainedConfig | None":
    """The model's configuration; None, with a finding, if it cannot be loaded here."""
    from llamafactory.model import load_config

    try:
        return load_config(run.model)
    except Exception as error:  # transformers and the hub raise many kinds
        _report(error, run, findings)
        return None


def check_template_name(run: Arguments, findings: Findings) -> bool:
    """Whether LLaMA-Factory has the recipe's template, or none is named; otherwise adds a finding."""
    from llamafactory.data.template import TEMPLATES

    named = run.data.template
    if named is None or named in TEMPLATES:
        return True
    findings.error("template", f"LLaMA-Factory has no template {named!r}{nearest(named, TEMPLATES)}")
    return False


def load_encoding(run: Arguments, config: "PretrainedConfig", findings: Findings) -> Encoding | None:
    """Loads tokenizer and template with LLaMA-Factory's functions and reports what does not fit.

    Args:
        run: the recipe, with a template that LLaMA-Factory has.
        config: of the model.
        findings: gets the results.
    """
    from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    named = run.data.template
    try:
        module = load_tokenizer(run.model)
    except Exception as error:  # as above
        _report(error, run, findings)
        return None
    tokenizer = module["tokenizer"]
    if named is None:
        findings.warn(
            "template",
            "is missing; LLaMA-Factory derives it from the tokenizer's chat template; set template to be sure",
        )
    else:
        _check_markers(TEMPLATES[named], named, tokenizer, findings)
    try:
        template = get_template_and_fix_tokenizer(tokenizer, run.data)
    except ValueError as error:
        findings.error("template", first_line(error))
        return None
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    if vocabulary and len(tokenizer) > vocabulary and not run.model.resize_vocab:
        findings.error(
            "template",
            f"with {named!r} the tokenizer has {len(tokenizer)} tokens, the model embeddings for {vocabulary}; "
            "set the model's own template (or resize_vocab: true)",
        )
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions and run.data.cutoff_len > positions and run.model.rope_scaling is None:
        findings.warn(
            "cutoff_len",
            f"{run.data.cutoff_len} exceeds the model's {positions} positions; set rope_scaling, or lower it",
        )
    return Encoding(tokenizer, module["processor"], template)


def _check_markers(template: "Template", name: str, tokenizer: "PreTrainedTokenizerBase", findings: Findings) -> None:
    slots = [template.format_user, template.format_assistant, template.format_prefix]
    texts = [slot for part in slots for slot in part.slots if isinstance(slot, str)] + template.stop_words
    tokens = [slot["token"] for part in slots for slot in part.slots if isinstance(slot, dict)]
    markers = dict.fromkeys(marker for text in texts for marker in _MARKER.findall(text))
    # Chat templates of some models mark turns with plain text, which is right for these models.
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    split = [
        marker
        for marker in markers
        if marker not in own and len(tokenizer.encode(marker, add_special_tokens=False)) != 1
    ]
    split += [token for token in tokens if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)]
    if split:
        findings.error(
            "template",
            f"{name!r} does not fit the tokenizer, which lacks {', '.join(split)}; the model would read each "
            "of them as several tokens and not as the marker of a turn; set the model's own template",
        )


def _report(error: Exception, run: Arguments, findings: Findings) -> None:
    """Reports a model that cannot be loaded: an error if it is missing or broken, a warning if it cannot be reached."""
    from huggingface_hub.errors import RepositoryNotFoundError

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    name = run.model.model_name_or_path
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        findings.error(
            "model_name_or_path",
            f"there is no folder {name} and no hub model of that name that you can access; correct the name, or log in",
        )
    elif is_path(name):
        findings.error(
            "model_name_or_path",
            f"{name} cannot be loaded ({first_line(causes[-1])}); copy or download the model again",
        )
    else:
        findings.warn(
            "model_name_or_path",
            f"{name} cannot be loaded from here ({first_line(causes[-1])}); template, lengths and memory are not "
            "checked",
        )
