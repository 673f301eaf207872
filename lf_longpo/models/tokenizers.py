"""Tokenizers, by the names of their models."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig
from lf_longpo.errors import UserError, first_line
from lf_longpo.models.chat import messages_of
from lf_longpo.models.embedded import resolve
from lf_longpo.models.folders import model_problem, tokenizer_problem
from lf_longpo.models.hub import hub_problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokenizers that know no window report a number above this.
NO_LIMIT = 100_000_000


def load_tokenizer(name: str, setting: str, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """Loads the tokenizer of a model folder, a hub name or an embedded model. It is shared: do not change it.

    Args:
        name: the model or its folder.
        setting: the setting that names it, for the error.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        UserError: it cannot be loaded, or has no fast version, which reports where tokens lie in the text.
    """
    if problem := tokenizer_problem(name, setting) or hub_problem(name, setting):
        raise UserError(f"{setting}: {problem}")
    try:
        tokenizer = _load(name, trust_remote_code)
    except UserError:
        raise
    except Exception as error:  # missing or broken files, code written for another transformers
        reason = first_line(error)
        raise UserError(
            f"{setting}: the tokenizer of {name!r} cannot be loaded ({reason}); set a model folder or a hub name"
        ) from None
    if not tokenizer.is_fast:
        raise UserError(
            f"{setting}: the tokenizer of {name!r} has no fast version, which chunking needs; set another one"
        )
    return tokenizer


@lru_cache(maxsize=8)
def _load(name: str, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve(name), trust_remote_code=trust_remote_code)
    tokenizer.name_or_path = name  # also for an embedded model, whose folder was loaded
    if tokenizer.is_fast:
        # Some tokenizers have a truncation of their own; removing it later, while threads tokenise, is not safe.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def load_counting_tokenizer(named: str | None, model: ChatConfig | None, section: str) -> "PreTrainedTokenizerBase":
    """Loads the tokenizer that counts tokens in a run: that of the setting `tokenizer`, or else the model's own.

    Args:
        named: the value of the setting.
        model: the model with the default tokenizer; None only if `named` is set.
        section: the model's section in the configuration, for the error.

    Raises:
        UserError: as `load_tokenizer`.
    """
    if model is None:
        return load_tokenizer(named or "", "tokenizer")
    if named or model.backend == "openai":
        return load_tokenizer(named or model.model, "tokenizer", model.trust_remote_code)
    setting = f"{section}.model"
    if problem := model_problem(model.model, setting, f"{section}.adapter", needs_weights=False):
        raise UserError(f"{setting}: {problem}")
    return load_tokenizer(model.model, setting, model.trust_remote_code)


def own_window(config: ChatConfig, tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The context window of a model, by its setting or its own tokenizer; None if both leave it unknown.

    Args:
        config: the model's.
        tokenizer: counts the run's tokens. If it is another model's, its window says nothing about this model.
    """
    known = tokenizer.model_max_length
    is_own = tokenizer.name_or_path == config.model and known < NO_LIMIT
    return config.context_window or (known if is_own else None)


def load_chat_tokenizer(config: ChatConfig) -> "PreTrainedTokenizerBase":
    """Loads the tokenizer of a chat model in this process.

    Raises:
        UserError: it cannot be loaded, or has no chat template.
    """
    tokenizer = load_tokenizer(config.model, "model", config.trust_remote_code)
    if not tokenizer.chat_template:
        raise UserError(f"the tokenizer of {config.model!r} has no chat template; set an instruction-tuned model")
    chat_ids("", tokenizer, config)
    return tokenizer


def chat_tokens(prompt: str, tokenizer: "PreTrainedTokenizerBase", config: ChatConfig | None = None) -> int:
    """Tokens of `prompt` as the only user message of a chat, with the model's chat template where it has one.

    Args:
        prompt: the user message.
        tokenizer: the model's.
        config: the model's; its system prompt and arguments of the template count, too.

    Raises:
        UserError: as `chat_ids`.
    """
    if tokenizer.chat_template:
        return len(chat_ids(prompt, tokenizer, config))
    system = config.system if config and config.system else ""
    return len(tokenizer(system + prompt, verbose=False)["input_ids"])


def chat_ids(
    prompt: str, tokenizer: "PreTrainedTokenizerBase", config: ChatConfig | None = None, reply_start: str = ""
) -> list[int]:
    """Token ids of the messages of a request, then `reply_start`, by the model's chat template.

    Raises:
        UserError: the template cannot render them, for example because it has no system prompt.
    """
    messages = messages_of(prompt, config.system if config else None)
    arguments = config.template_arguments if config else {}
    try:
        text: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **arguments)
    except Exception as error:  # a template is a program and may raise any error
        fix = "remove system or extra_body.chat_template_kwargs" if config else "set another model or tokenizer"
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} cannot render a request ({first_line(error)}); {fix}"
        ) from None
    # The template writes special tokens itself.
    ids: list[int] = tokenizer(text + reply_start, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
