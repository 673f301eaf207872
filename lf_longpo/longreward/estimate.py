"""The expected usage of a LongReward run, from its input.

Contexts, queries, prompts and given responses are counted with the tokenizer. The lengths of what the models write are
the assumptions named below.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from lf_longpo.config import ChatConfig, EmbedderConfig, JudgingConfig, LongRewardGenerateConfig
from lf_longpo.data.questions import Source, read_questions
from lf_longpo.data.records import Question
from lf_longpo.judging.verdict_requests import calls_a_verdict
from lf_longpo.longreward.judge_prompts import FIELDS, SEVERAL
from lf_longpo.longreward.method import PROMPT
from lf_longpo.longreward.scorer import RATINGS
from lf_longpo.longreward.statement_checks import LEVELS
from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.tokenizers import chat_tokens
from lf_longpo.models.usage import Usage
from lf_longpo.text.chunking import count_tokens, split_sentences
from lf_longpo.text.language import Language, detect_language
from lf_longpo.text.prompt_set import PromptSet
from lf_longpo.text.prompts import fill

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Assumed lengths, in tokens: of a response to a question without an answer, of the notes on a part, of an analysis, and
# of the line about one of several statements.
_ANSWER = 200
_NOTE = 60
_ANALYSIS = 100
_LINE = 40
# With racing: the share of a question's responses that is checked, about as in docs/fewer-calls-longreward.md.
_CHECKED = 0.4


def estimate_longreward(
    config: LongRewardGenerateConfig,
    source: Source,
    prompts: PromptSet,
    tokenizer: "PreTrainedTokenizerBase",
    given: Mapping[str, Sequence[str]],
) -> dict[str, Usage]:
    """Calls and tokens by stage, if every verdict can be read at once.

    Args:
        config: the run's.
        source: its questions.
        prompts: the judge's.
        tokenizer: counts.
        given: responses by question id, where they are given; otherwise gold answers replace them.
    """
    bare = prompt_sizes(prompts, config.judge, tokenizer)
    stages: dict[str, Usage] = {}
    for question in read_questions(source):
        for stage, usage in _of_question(config, bare, tokenizer, question, given.get(question.id)):
            stages[stage] = stages.get(stage, Usage()) + usage
    return stages


def prompt_sizes(
    prompts: PromptSet, judge: ChatConfig, tokenizer: "PreTrainedTokenizerBase"
) -> Callable[[str, Language], int]:
    """A function from a stage and a language to the tokens of the judge's prompt with empty placeholders."""

    @cache
    def bare(stage: str, language: Language) -> int:
        empty = dict.fromkeys(FIELDS[stage], "")
        empty.pop("context", None)
        return chat_tokens(prompts.render(stage, language, **empty)(""), tokenizer, judge)

    return bare


def _of_question(
    config: LongRewardGenerateConfig,
    bare: Callable[[str, Language], int],
    tokenizer: "PreTrainedTokenizerBase",
    question: Question,
    given: Sequence[str] | None,
) -> list[tuple[str, Usage]]:
    settings = config.longreward
    usage: list[tuple[str, Usage]] = []
    if config.policy and config.responses is None:
        stand_in = question.answers[0] if question.answers else ""
        answer = min(count_tokens(stand_in, tokenizer) or _ANSWER, settings.sampling.max_new_tokens)
        if is_embedded(config.policy.model):  # it ends no response early
            answer = settings.sampling.max_new_tokens
        limit = (config.policy.context_window or tokenizer.model_max_length) - settings.sampling.max_new_tokens
        bare_prompt = fill(PROMPT, context="", question=question.question)
        size = count_tokens(question.context, tokenizer)
        asked = min(size + chat_tokens(bare_prompt, tokenizer, config.policy), limit)
        usage.append(("sample", Usage(1, asked, answer).times(settings.num_samples)))
        lengths = [(answer, _sentences(stand_in))] * settings.num_samples
    else:
        lengths = response_lengths(given or (), tokenizer)
    if lengths:
        share = _CHECKED if settings.racing else 1
        usage += judging_usage(settings, config.judge, config.embedder, bare, tokenizer, question, lengths, share)
    return usage


def response_lengths(responses: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[tuple[int, int]]:
    """Tokens and sentences of each response."""
    return [(count_tokens(text, tokenizer), _sentences(text)) for text in responses]


def judging_usage(
    settings: JudgingConfig,
    judge: ChatConfig,
    embedder: EmbedderConfig,
    bare: Callable[[str, Language], int],
    tokenizer: "PreTrainedTokenizerBase",
    question: Question,
    lengths: Sequence[tuple[int, int]],
    checked_share: float = 1,
) -> list[tuple[str, Usage]]:
    """Usage of scoring the responses to one question, by stage.

    Args:
        settings: how the judge scores.
        judge: the judge.
        embedder: embeds the context and the statements.
        bare: the result of `prompt_sizes`.
        tokenizer: counts.
        question: the question.
        lengths: tokens and sentences of each response.
        checked_share: the share of the responses whose faithfulness is checked.
    """
    language = detect_language(question.question)
    size = count_tokens(question.context, tokenizer)
    query = count_tokens(question.question, tokenizer)
    usage: list[tuple[str, Usage]] = []
    parts = -(-size // settings.chunk_size)
    usage.append(("extract", Usage(parts, size + parts * (bare("extract", language) + query), parts * _NOTE)))
    rating, level = (calls_a_verdict(settings, judge, labels, tokenizer) for labels in (RATINGS, LEVELS))
    analysis = min(_ANALYSIS, settings.analysis_tokens) or 1
    evidence = min(settings.evidence_top_k * settings.evidence_chunk_size, size)
    checked = max(2, round(checked_share * len(lengths)))
    for number, (answer, sentences) in enumerate(lengths):
        # A small judge writes down little more than the first statement.
        statements = 1 if is_embedded(judge.model) else sentences
        if number < checked:
            split = bare("statements", language) + query + answer
            usage.append(("statements", Usage(1, split, answer + 20 * statements)))
        for stage in ("helpfulness", "logicality"):
            usage.append((stage, Usage(1, bare(stage, language) + query + answer, analysis).times(rating)))
        notes = parts * (_NOTE + 10)
        asked = bare("completeness", language) + query + answer + notes
        usage.append(("completeness", Usage(1, asked, analysis).times(rating)))
        if number < checked:
            calls = -(-statements // settings.statements_per_call)
            several = -(-statements // calls)  # statements of a call
            asked = bare("faithfulness" if several == 1 else SEVERAL, language)
            asked += min(evidence * several, size) + (answer // sentences + 10) * several
            check = Usage(1, asked, analysis).times(level) if several == 1 else Usage(1, asked, _LINE * several)
            usage.append(("faithfulness", check.times(calls)))
    if embedder.backend == "openai":
        batches = -(-size // settings.evidence_chunk_size // embedder.batch_size)
        answers = sum(answer for answer, _ in lengths)
        usage.append(("embed", Usage(batches + len(lengths), size + answers, 0)))
    return usage


def _sentences(answer: str) -> int:
    """Sentences and list items with at least one letter or digit."""
    return sum(any(character.isalnum() for character in sentence) for sentence in split_sentences(answer)) or 1
