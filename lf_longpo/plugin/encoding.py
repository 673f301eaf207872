"""The number of tokens of an example after LLaMA-Factory's encoding, and prompts that fit the cutoff length.

LLaMA-Factory truncates a prompt longer than cutoff_len at its end, where the question is. So prompts are fitted before
training, measured with the template and tokenizer that training uses.
"""

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from lf_longpo.errors import UserError
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.text.fitting import cut_middle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplateEncoder:
    """LLaMA-Factory's encoding of a one-turn example.

    Args:
        template: LLaMA-Factory's name of the template.
        tokenizer: model folder, hub name or embedded model; training uses its tokenizer.
        cutoff_len: of the training recipe, in tokens.
        trust_remote_code: whether code that comes with the tokenizer may run.

    Raises:
        UserError: LLaMA-Factory has no such template, or the tokenizer cannot be loaded.
    """

    def __init__(self, template: str, tokenizer: str, cutoff_len: int, trust_remote_code: bool = False) -> None:
        from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments

        if template not in TEMPLATES:
            import difflib

            near = difflib.get_close_matches(template, TEMPLATES)
            raise UserError(
                f"pairs.template: LLaMA-Factory has no template {template!r}"
                + (f"; did you mean {' or '.join(near)}?" if near else "; name one that it has")
            )
        # A copy: LLaMA-Factory changes the special tokens and the chat template of the tokenizer.
        self._tokenizer: PreTrainedTokenizerBase = deepcopy(load_tokenizer(tokenizer, "tokenizer", trust_remote_code))
        logging.getLogger("llamafactory").setLevel(logging.WARNING)
        self._template = get_template_and_fix_tokenizer(self._tokenizer, DataArguments(template=template))
        self._cutoff_len = cutoff_len

    def length(self, prompt: str, response: str) -> tuple[int, int]:
        """Numbers of tokens of the prompt and of the response, as in LLaMA-Factory's pairs."""
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        prompt_ids, response_ids = self._template.encode_oneturn(self._tokenizer, messages)
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
