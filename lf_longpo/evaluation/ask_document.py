"""Questions about one document, asked one by one: the prompts of an evaluation without its files."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from lf_longpo.config import DocumentChatConfig
from lf_longpo.config.loading import load_config
from lf_longpo.models.cache import CallCache
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.factory import make_chat
from lf_longpo.models.folders import base_model
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import load_counting_tokenizer
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, fill, load_prompt

_SEED = 42  # the default of an evaluation


def chat_settings(name: str, overrides: Sequence[str]) -> DocumentChatConfig:
    """The settings of a chat about a document.

    Args:
        name: a model (folder, hub name, embedded name, name on a server) or the folder of a LoRA adapter; the base
            model of an adapter is the one that its adapter_config.json names.
        overrides: `key=value`.

    Raises:
        UserError: a setting is wrong.
    """

    def load(**named: str) -> DocumentChatConfig:
        # A JSON text is a YAML text: a name with special characters stays one text.
        quoted = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in named.items()]
        return load_config(DocumentChatConfig, None, [*quoted, *overrides])

    config = load(model=name)
    base = base_model(name) if config.backend != "openai" else ""
    return load(model=base, adapter=name) if base else config


class Answer(NamedTuple):
    """An answer, and what was cut off."""

    text: str
    document_cut: bool
    """Whether the middle of the document was removed, so that the prompt fits the model's window."""
    truncated: bool
    """Whether the answer reached its limit of new tokens."""


class DocumentChat:
    """A model and the document that all questions are about. Each question stands alone.

    Args:
        config: the model's settings.
        document: the text.
        prompt: `plain` or another shipped prompt, or the path of a text file with {context} and {question}.

    Raises:
        UserError: the prompt or the tokenizer cannot be used.
    """

    def __init__(self, config: DocumentChatConfig, document: str, prompt: str) -> None:
        self._template = load_prompt(prompt, QA_PROMPTS, QA_FIELDS, "--prompt")
        self._document = document
        self._sampling = config.sampling
        self._asked = 0
        tokenizer = load_counting_tokenizer(config.tokenizer, config, "settings")
        self._cache = CallCache(None)
        ledger = Ledger()
        self._calls = Calls(make_chat(config, self._cache, ledger), config, tokenizer, self._cache, ledger, _SEED)

    @property
    def window(self) -> int:
        """Prompt and new tokens together that the model takes; 0 before the start."""
        return self._calls.window

    async def start(self) -> None:
        """Starts the model.

        Raises:
            UserError: the model cannot be used.
        """
        self._cache.open()
        await self._calls.start()

    async def ask(self, question: str) -> Answer:
        """Answers one question.

        Raises:
            CallFailed: the call is lost, or the question does not fit the window.
            UserError: no call can work.
        """
        rendered = ""

        def render(context: str) -> str:
            nonlocal rendered
            rendered = context  # the last context that is rendered is the one of the request
            return fill(self._template, context=context, question=question)

        self._asked += 1
        call = Call("chat", str(self._asked), 0, self._sampling, render, self._document)
        completion = await self._calls.complete(call)
        return Answer(completion.text.strip(), rendered != self._document, completion.truncated)

    async def close(self) -> None:
        """Closes the model."""
        await self._calls.close()
        self._cache.close()
