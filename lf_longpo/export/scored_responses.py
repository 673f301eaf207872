"""All responses of a run with their rewards, question by question, and the prompt that they are trained on."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from lf_longpo.config import GenerateConfig, LongMabGenerateConfig
from lf_longpo.data.pairs import may_train
from lf_longpo.data.questions import read_questions
from lf_longpo.data.records import Question, Rollout, names
from lf_longpo.errors import TextTooLong
from lf_longpo.files.journal import RowsById
from lf_longpo.longmab.method import Prompts
from lf_longpo.longmab.rollout_files import ROLLOUTS
from lf_longpo.longreward.method import PROMPT
from lf_longpo.longreward.response_files import SCORES, Keys, Response, reward_of
from lf_longpo.plugin.encoding import TemplateEncoder
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.prompts import around_context


class Scored(NamedTuple):
    """A response and its reward."""

    text: str
    reward: float
    index: int


class Answered(NamedTuple):
    """A question with its responses."""

    id: str
    prompt: str
    """Cut in the middle of its context until it fits pairs.cutoff_len with the longest response."""
    responses: list[Scored]


def answered(run: RunFolder) -> Iterator[Answered]:
    """Streams the questions of a run that have responses, in the input's order.

    A response that leaves no room for a prompt is left out, and so is one that may not train (`may_train`).

    Raises:
        UserError: the run's input or its template is not to be had any more.
    """
    config = run.config
    trust = bool(config.policy and config.policy.trust_remote_code)
    encoder = TemplateEncoder(
        config.pairs.template, run.found(config.tokenizer or config.policy.model), config.pairs.cutoff_len, trust
    )
    responses_of, render_of = (
        _longmab(run, config) if isinstance(config, LongMabGenerateConfig) else _longreward(run, config)
    )
    for question in read_questions(run.questions):
        if responses := responses_of(question.id):
            render = render_of(question)
            while responses:
                try:
                    context = encoder.fit(question.context, render, [one.text for one in responses])
                except TextTooLong:
                    responses.remove(max(responses, key=lambda one: len(one.text)))
                else:
                    yield Answered(question.id, render(context), responses)
                    break


_Run = tuple[Callable[[str], list[Scored]], Callable[[Question], Callable[[str], str]]]


def _longmab(run: RunFolder, config: LongMabGenerateConfig) -> _Run:
    rollouts = RowsById(run.path / ROLLOUTS, names(Rollout))

    def responses(id: str) -> list[Scored]:
        by_round = {row["round"]: row for row in rollouts.rows(id)}
        return [
            Scored(row["output"], row["reward"], round)
            for round, row in sorted(by_round.items())
            if may_train(row["output"], row.get("truncated") is True, config.pairs.allow_truncated)
        ]

    prompts = {name: run.found(getattr(config.longmab, name)) for name in ("prompt", "probe_prompt")}
    return responses, Prompts(config.longmab.model_copy(update=prompts)).rollout


def _longreward(run: RunFolder, config: GenerateConfig) -> _Run:
    keys = Keys({question.id for question in read_questions(run.questions)})
    scores = RowsById(run.path / SCORES, ("idx", "query", "answer", "scores"), keys.of_score)

    def responses(id: str) -> list[Scored]:
        by_idx = {row["idx"]: row for row in scores.rows(id)}
        scored = [
            Scored(row["answer"], reward_of(row["scores"]), response.number)
            for row in by_idx.values()
            if may_train((response := Response.of(row)).answer, response.truncated, config.pairs.allow_truncated)
        ]
        return sorted(scored, key=lambda one: one.index)

    return responses, lambda question: around_context(PROMPT, question=question.question)
