"""`longpo score`: scores responses that exist already, without sampling and without pairs."""

from collections.abc import Iterator, Mapping
from typing import Any

from lf_longpo.config import ChatConfig, EmbedderConfig, ScoreConfig
from lf_longpo.data.questions import Source, placed_questions, refuse_repeated_ids
from lf_longpo.data.records import Question
from lf_longpo.engine.outcomes import Outcome, Outcomes
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.session import Session
from lf_longpo.errors import UserError
from lf_longpo.files.faults import AT_ONCE, Faults, parsed
from lf_longpo.files.tables import places_and_rows
from lf_longpo.longreward.given_responses import KnownQuestion, check_files, import_responses, unscored
from lf_longpo.longreward.judge_prompts import prompts_for
from lf_longpo.longreward.response_files import SCORES, Files, Keys, Response
from lf_longpo.longreward.response_scoring import Scoring
from lf_longpo.longreward.score_summary import score_summary
from lf_longpo.longreward.scorer import CALLS_A_QUESTION, Scorer
from lf_longpo.models.tokenizers import load_counting_tokenizer
from lf_longpo.text.prompt_set import PromptSet


async def score_file(config: ScoreConfig) -> tuple[dict[str, Any], int]:
    """Scores all responses, or resumes where an earlier start stopped.

    Returns:
        The summary (also written to `output_dir`/summary.json) and the exit code.

    Raises:
        UserError: input, settings or models cannot work.
    """
    output_dir = config.output_dir
    prompts = prompts_for(config.longreward, config.judge)
    async with Session(config) as session:
        session.check_settings()
        questions = _known_questions(config, prompts)
        given = _given_responses(config, questions)
        total = sum(map(len, given.values()))
        needed: list[ChatConfig | EmbedderConfig] = []
        if unscored(output_dir, given):
            needed = [config.judge, config.embedder]
        await session.check_models(*needed)
        tokenizer = load_counting_tokenizer(config.tokenizer, config.judge, "judge")
        judge, embedder = session.chat(config.judge, tokenizer), session.embedder(config.embedder)
        in_flight = config.judge.questions_at_once(CALLS_A_QUESTION)
        scorer = Scorer(config.longreward, config.judge, prompts, judge, embedder, tokenizer, remembered=in_flight)
        await session.start(*needed)
        session.open()
        progress = Progress("score", len(given), len(given) + total, session.ledger)
        outcomes = Outcomes(progress)
        with Files(output_dir, questions) as files:
            import_responses(files, config.responses, questions)
            scoring = Scoring(scorer, prompts.texts, files, session.failures, progress, outcomes)

            async def work(question: Question) -> None:
                responses = files.responses(question.id)

                async def respond(idx: str) -> Response:
                    return responses[idx]

                await scoring.rewards(question, list(responses), respond)

            def finished() -> set[str]:
                return {id for id in given if files.all_scored(id)}

            progress.note(f"{total} responses to {len(given)} questions -> {output_dir / SCORES}")
            answered = (question for question in _questions(config) if question.id in given)
            tally = await session.run(answered, len(given), work, in_flight, progress, finished)
            summary = {
                "questions": len(given),
                **tally.counts(),
                **outcomes.summary(Outcome.NOT_SCORED, Outcome.UNFINISHED_THOUGHT),
                **score_summary(files, given),
                **session.totals(),
            }
        session.write_summary(summary)
        too_many = summary[Outcome.NOT_SCORED] > config.max_failure_rate * total
        return summary, tally.exit_code(summary["scored"], config.max_failure_rate) or int(too_many)


def _known_questions(config: ScoreConfig, prompts: PromptSet) -> dict[str, KnownQuestion]:
    """The questions by id; reads all of them once."""
    with Faults() as faults:
        return {
            question.id: KnownQuestion(question.question, question.digest(), question.digest(*prompts.texts))
            for question in _questions(config, faults)
        }


def _given_responses(config: ScoreConfig, questions: Mapping[str, KnownQuestion]) -> dict[str, list[Response]]:
    """The responses by question, without their texts; see `check_files`."""
    given = check_files(config.output_dir, config.responses, questions)
    if without_context := [id for id in given if id not in questions]:
        raise UserError(
            f"{config.responses}: no context for {without_context[0]!r} ({len(without_context)} such); set contexts"
        )
    return given


def _questions(config: ScoreConfig, faults: Faults = AT_ONCE) -> Iterator[Question]:
    """The questions of the responses, each once: from the contexts' file, or from the responses' own contexts.

    Args:
        config: the command's.
        faults: takes the rows that cannot be used.
    """
    if config.contexts:
        placed = placed_questions(Source(config.contexts, needs_answers=False), faults)
        yield from (question for _, question in refuse_repeated_ids(placed, faults))
        return
    seen: dict[str, str] = {}
    for place, question in parsed(places_and_rows(config.responses, faults=faults), _own_question, faults):
        if question.id not in seen:
            yield question
        if seen.setdefault(question.id, question.digest()) != question.digest():
            faults.add(
                UserError(
                    f"{place}: its context or query is not that of the responses {question.id}-... before it; give "
                    "responses to one question the same context and query"
                )
            )


def _own_question(row: Any, place: str) -> Question:
    """The question of a response that has its context."""
    for field in ("idx", "query", "answer", "context"):
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            hint = "; or set contexts to the file that has it" if field == "context" else ""
            raise UserError(f"{place}: write an object with the text {field}{hint}")
    if (id := Keys(()).of_response(row)) is None:
        raise UserError(f"{place}: the idx {row['idx']!r} must have the form <context's idx>-<number>")
    return Question(id, row["query"], (), row["context"])
