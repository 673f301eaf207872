"""The number of tokens of an example after LLaMA-Factory's encoding, and prompts that fit the cutoff length.

LLaMA-Factory truncates a prompt longer than cutoff_len at its end, where the question is. So prompts are fitted before
training, measured with the template and tokenizer that training uses.
"""

import difflib
import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Literal

from lf_longpo.data.records import ScoredResponse
from lf_longpo.errors import UserError
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.plugin.compat import template_names, thought_marks
from lf_longpo.text.fitting import cut_middle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_template(name: str, setting: str) -> None:
    """Checks that LLaMA-Factory has a template, without the seconds that its import takes.

    Args:
        name: of the template.
        setting: the setting that names it, for the error.

    Raises:
        UserError: there is no such template.
    """
    names = template_names()
    if name not in names:
        near = difflib.get_close_matches(name, names)
        raise UserError(
            f"{setting}: LLaMA-Factory has no template {name!r}; "
            + (f"did you mean {' or '.join(near)}?" if near else f"set one of {', '.join(names)}")
        )


class TemplateEncoder:
    """LLaMA-Factory's encoding of a one-turn example.

    Args:
        template: LLaMA-Factory's name of the template.
        tokenizer: model folder, hub name or embedded model; training uses its tokenizer.
        cutoff_len: of the training recipe, in tokens.
        trust_remote_code: whether code that comes with the tokenizer may run.
        system: the system prompt of every example, if any.
        thinking: what becomes of thoughts, see `ChatConfig.thinking`.

    Raises:
        UserError: LLaMA-Factory has no such template, the tokenizer cannot be loaded, or thoughts are to be kept and
            the template has no form for them.
    """

    def __init__(
        self,
        template: str,
        tokenizer: str,
        cutoff_len: int,
        trust_remote_code: bool = False,
        system: str | None = None,
        thinking: Literal["strip", "keep", "auto"] = "auto",
    ) -> None:
        check_template(template, "pairs.template")
        from llamafactory.data.template import get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments

        # A copy: LLaMA-Factory changes the special tokens and the chat template of the tokenizer.
        self._tokenizer: PreTrainedTokenizerBase = deepcopy(load_tokenizer(tokenizer, "tokenizer", trust_remote_code))
        logging.getLogger("llamafactory").setLevel(logging.WARNING)
        self._template = get_template_and_fix_tokenizer(self._tokenizer, DataArguments(template=template))
        self._cutoff_len = cutoff_len
        self._system = system
        self._marks = None if thinking == "strip" else thought_marks(self._template)
        if thinking == "keep" and self._marks is None:
            raise UserError(
                f"policy.thinking: keep needs a reasoning template of LLaMA-Factory, and {template} has no form for "
                "thoughts; set pairs.template to a reasoning template (such as qwen3), or set policy.thinking: strip"
            )

    def written(self, response: ScoredResponse) -> str:
        """The text of a response in a pair: the answer, with the thought before it where thoughts are kept.

        Under a reasoning template, LLaMA-Factory adds an empty thought to a text without a thought: to the response,
        where it is trained, or with `enable_thinking: false` in the recipe to the prompt, where it is not. With
        `enable_thinking: false`, it removes kept thoughts.
        """
        if self._marks is None or not response.thought:
            return response.text
        opening, closing = self._marks
        return f"{opening}{response.thought}{closing}{response.text}"

    def length(self, prompt: str, response: str) -> tuple[int, int]:
        """Numbers of tokens of the prompt and of the response, as in LLaMA-Factory's pairs."""
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        prompt_ids, response_ids = self._template.encode_oneturn(self._tokenizer, messages, self._system)
        return len(prompt_ids), len(response_ids) + int(self._template.efficient_eos)

    def fit(self, context: str, render: Callable[[str], str], responses: Sequence[str]) -> str:
        """Cuts a context in its middle until the rendered prompt and the longest response fit cutoff_len.

        Args:
            context: the text to cut.
            render: puts a context into the prompt.
            responses: chosen and rejected.

        Returns:
            The context, which is cut only if it does not fit.

        Raises:
            TextTooLong: the longest response leaves no room for the prompt without context.
        """
        longest = max(self.length("", response)[1] for response in responses)
        return cut_middle(
            context, self._tokenizer, lambda text: self.length(render(text), "")[0], self._cutoff_len - longest
        )
