"""All responses of a run with their rewards and training prompt, question by question."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from lf_longpo.config import GenerateConfig, LongMabGenerateConfig
from lf_longpo.data.pairs import may_train
from lf_longpo.data.questions import read_questions
from lf_longpo.data.records import Question, Rollout, ScoredResponse, names
from lf_longpo.errors import TextTooLong
from lf_longpo.files.journal import RowsById
from lf_longpo.longmab.method import Prompts
from lf_longpo.longmab.rollout_files import ROLLOUTS
from lf_longpo.longreward.method import PROMPT
from lf_longpo.longreward.response_files import SCORES, Keys, Response, reward_of
from lf_longpo.plugin.encoding import TemplateEncoder
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.prompts import around_context


class AnsweredQuestion(NamedTuple):
    """A question with its responses."""

    id: str
    prompt: str
    """The training prompt; its context is cut in the middle so that the longest response fits pairs.cutoff_len."""
    responses: list[ScoredResponse]


def answered_questions(run: RunFolder) -> Iterator[AnsweredQuestion]:
    """Streams the questions of a run that have responses, in the input's order.

    Skips responses that leave no room for a prompt, and responses that must not train (see `may_train`).

    Args:
        run: the run's folder.

    Raises:
        UserError: the run's input or its template no longer exists.
    """
    encoder, render_of = prompt_encoder(run), prompt_of(run)
    responses_of = _longmab(run, run.config) if run.config.method == "longmab" else _longreward(run, run.config)
    for question in read_questions(run.questions):
        if responses := responses_of(question.id):
            render = render_of(question)
            while responses:
                try:
                    context = encoder.fit(question.context, render, [response.text for response in responses])
                except TextTooLong:
                    responses.remove(max(responses, key=lambda response: len(response.text)))
                else:
                    yield AnsweredQuestion(question.id, render(context), responses)
                    break


def prompt_encoder(run: RunFolder) -> TemplateEncoder:
    """The encoder that measures the run's training prompts.

    Raises:
        UserError: the tokenizer or the template cannot be loaded here.
    """
    config = run.config
    thinking = config.policy.thinking if config.policy else "auto"
    size = config.pairs.cutoff_len
    return TemplateEncoder(
        config.pairs.template, run.tokenizer_name, size, run.trusts_remote_code, config.system, thinking
    )


def prompt_of(run: RunFolder) -> Callable[[Question], Callable[[str], str]]:
    """Returns a function from a question to the function that puts a context into its training prompt.

    Raises:
        UserError: a prompt template of the run no longer exists.
    """
    config = run.config
    if isinstance(config, LongMabGenerateConfig):
        prompts = {name: run.resolved(getattr(config.longmab, name)) for name in ("prompt", "probe_prompt")}
        return Prompts(config.longmab.model_copy(update=prompts)).rollout
    return lambda question: around_context(PROMPT, question=question.question)


def _longmab(run: RunFolder, config: GenerateConfig) -> Callable[[str], list[ScoredResponse]]:
    rollouts = RowsById(run.path / ROLLOUTS, names(Rollout))
    rollouts.read_on()

    def responses(id: str) -> list[ScoredResponse]:
        by_round = {row["round"]: row for row in rollouts.rows(id)}
        return [
            ScoredResponse(row["output"], row["reward"], round)
            for round, row in sorted(by_round.items())
            if may_train(row["output"], row.get("truncated") is True, config.pairs.allow_truncated)
        ]

    return responses


def _longreward(run: RunFolder, config: GenerateConfig) -> Callable[[str], list[ScoredResponse]]:
    keys = Keys({question.id for question in read_questions(run.questions)})
    scores = RowsById(run.path / SCORES, ("idx", "query", "answer", "scores"), keys.of_score)
    scores.read_on()

    def responses(id: str) -> list[ScoredResponse]:
        by_idx = {row["idx"]: row for row in scores.rows(id)}
        scored = [
            ScoredResponse(response.answer, reward_of(row["scores"]), response.number)
            for row in by_idx.values()
            if may_train((response := Response.of(row)).answer, response.truncated, config.pairs.allow_truncated)
        ]
        return sorted(scored, key=lambda response: response.index)

    return responses
