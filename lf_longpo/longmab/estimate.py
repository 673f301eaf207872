"""The expected usage of a LongMab-PO run, from its input."""

import math
from typing import TYPE_CHECKING

from lf_longpo.config import LongMabGenerateConfig
from lf_longpo.data.questions import Source, read_questions
from lf_longpo.longmab.method import Prompts
from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.tokenizers import chat_tokens
from lf_longpo.models.usage import Usage
from lf_longpo.text.chunking import chunk_sentences, count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The share of max_new_tokens that outputs take: a median of about 300 of 1024 tokens. Small models end no output early.
_OUTPUT_SHARE = 0.3
# The share of the rounds that questions have with `longmab.stop`: 0.3 to 0.6 in simulation, see docs/fewer-calls.md.
_ROUNDS_SHARE = 0.5


def estimate_longmab(
    config: LongMabGenerateConfig, source: Source, prompts: Prompts, tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, Usage]:
    """Calls and tokens by stage, if every question's probe is kept.

    Contexts and prompts are counted; the lengths of outputs, and the rounds with `longmab.stop`, are assumed.

    Args:
        config: the run's.
        source: its questions.
        prompts: its prompt templates.
        tokenizer: counts tokens.
    """
    settings = config.longmab
    share = 1.0 if is_embedded(config.policy.model) else _OUTPUT_SHARE
    output = int(share * settings.sampling.max_new_tokens)
    window = config.policy.context_window or tokenizer.model_max_length
    limit = window - settings.sampling.max_new_tokens
    rounds = settings.rounds if settings.stop is None else math.ceil(_ROUNDS_SHARE * settings.rounds)
    probe, rollouts, embed = Usage(), Usage(), Usage()
    for question in read_questions(source):
        chunks = chunk_sentences(question.context, tokenizer, settings.chunk_size, settings.chunk_overlap)
        sizes = [count_tokens(chunk, tokenizer) for chunk in chunks]
        shown = min(settings.top_k, len(chunks)) * sum(sizes) // len(chunks)
        probed = chat_tokens(prompts.probe(question)(question.context), tokenizer, config.policy)
        probe += Usage(1, min(probed, limit), output)
        each = min(chat_tokens(prompts.rollout(question)(""), tokenizer, config.policy) + shown, limit)
        rollouts += Usage(1, each, output).times(rounds)
        if settings.init != "random" and config.embedder.backend == "openai":
            embed += Usage(-(-(len(chunks) + 1) // config.embedder.batch_size), sum(sizes) + output, 0)
    return {"probe": probe, "rollout": rollouts, "embed": embed}
