"""Which parameters a model takes: OpenAI's reasoning models refuse some that every other model needs.

They are known by the model's name, or learnt from the server's first refusal of a parameter. Later calls leave the
parameter out, instead of failing question by question.
"""

import re
import sys
from collections.abc import Collection
from typing import Any

from lf_longpo.errors import Refused

# OpenAI's o-series (o1, o3-mini, o4-mini-2025-04-16) and GPT-5 with its later versions, also fine-tuned
# (`ft:o4-mini-...`) or by a gateway's name (`openai/gpt-5`). Their limit of new tokens includes thoughts, and its name
# differs.
_WANTS_COMPLETION_TOKENS = re.compile(r"(?:ft:|openai/)*(?:o\d|gpt-5)(?![^-.:])", re.IGNORECASE)
# Models without sampling parameters. GPT-5.1 and later take them at some reasoning efforts, `gpt-5-chat` always.
_SAMPLES_ONE_WAY = re.compile(r"(?:ft:|openai/)*(?:o\d|gpt-5(?!-chat))(?![^-:])", re.IGNORECASE)
_SAMPLING = ("temperature", "top_p", "presence_penalty")
# Parameters that a request can do without; the server then uses its own values.
_DISPENSABLE = {*_SAMPLING, "seed"}

UNSUPPORTED_CODES = {"unsupported_parameter", "unsupported_value"}
_UNSUPPORTED_WORDS = re.compile(r"unsupported (?:parameter|value): ['\"`](\w+)['\"`]", re.IGNORECASE)


class ParameterRefused(Refused):
    """A call that the server refuses because of one parameter.

    Args:
        message: what happened, in the server's words.
        parameter: the parameter's name.
    """

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


def refused_parameter(code: str, named: object, words: str) -> str:
    """The parameter that a refusal names, in the form of OpenAI's API; empty if it is about something else.

    Args:
        code: `error.code` of the reply.
        named: `error.param` of the reply.
        words: `error.message` of the reply; gateways often send nothing else.
    """
    if code in UNSUPPORTED_CODES and isinstance(named, str) and named:
        return named
    found = _UNSUPPORTED_WORDS.search(words)
    return found[1] if found else ""


def concerns(refusal: Refused, parameters: Collection[str]) -> bool:
    """Whether a refusal is about one of the parameters, by its field for the parameter or by the server's words."""
    named = isinstance(refusal, ParameterRefused) and refusal.parameter in parameters
    return named or any(re.search(rf"\b{name}\b", str(refusal)) for name in parameters)


class RequestParameters:
    """The parameters of one model, and what has been learnt about them in this process.

    Args:
        model: the name that the server knows.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._left_out: set[str] = set(_SAMPLING) if _SAMPLES_ONE_WAY.match(model) else set()
        self._renames = _WANTS_COMPLETION_TOKENS.match(model) is not None
        self._reported: set[str] = set()

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` as this model takes it. What is left out is reported on stderr, once for each parameter."""
        dropped = [name for name in body if name in self._left_out]
        if new := [name for name in dropped if name not in self._reported]:
            self._reported.update(new)
            print(
                f"{self._model} does not support these parameters: {', '.join(new)}. Requests leave them out, and the "
                "server uses its own values.",
                file=sys.stderr,
                flush=True,
            )
        adapted = {name: value for name, value in body.items() if name not in self._left_out}
        if self._renames and "max_tokens" in adapted:
            adapted["max_completion_tokens"] = adapted.pop("max_tokens")
        return adapted

    def learn(self, refusal: ParameterRefused, sent: dict[str, Any]) -> bool:
        """Takes a refusal into account.

        Args:
            refusal: the server's.
            sent: the body that was refused.

        Returns:
            Whether the same call can be sent again, without the parameter.
        """
        name = refusal.parameter
        if name not in sent:
            return False
        if name == "max_tokens":
            self._renames = True
        elif name in _DISPENSABLE:
            self._left_out.add(name)
        else:
            return False
        return True
