"""`longpo score`: scores responses that exist already, without sampling and without pairs."""

import json
import time
from collections.abc import Iterator
from typing import Any

from lf_longpo.aio import all_settled
from lf_longpo.config import ScoreConfig
from lf_longpo.data.questions import Source, placed_questions, refuse_repeated_ids
from lf_longpo.data.records import Question
from lf_longpo.engine.pipeline import FAILURES, Failures, run_questions
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import UserError
from lf_longpo.files.faults import AT_ONCE, Faults, parsed
from lf_longpo.files.journal import check_folder, write_whole
from lf_longpo.files.run_dir import changed_settings, locked, refuse_changes, save_settings
from lf_longpo.files.tables import places_and_rows
from lf_longpo.longreward.judge_prompts import prompts_for
from lf_longpo.longreward.method import Scoring
from lf_longpo.longreward.response_files import (
    SCORES,
    Asked,
    Files,
    Keys,
    Response,
    check_files,
    import_responses,
    unscored,
)
from lf_longpo.longreward.score_summary import score_summary
from lf_longpo.longreward.scorer import CALLS_A_QUESTION, Scorer
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.factory import make_chat
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import load_counting_tokenizer


async def score_file(config: ScoreConfig) -> tuple[dict[str, Any], int]:
    """Scores all responses, or carries on where an earlier start was killed.

    Returns:
        The summary (also written to `output_dir`/summary.json) and the exit code.

    Raises:
        UserError: input, settings or models cannot work.
    """
    began = time.monotonic()
    output_dir = config.output_dir
    prompts = prompts_for(config.longreward, config.judge)
    asked: dict[str, Asked] = {}
    with Faults() as faults:
        for question in _questions(config, faults):
            asked[question.id] = Asked(question.question, question.digest(), question.digest(*prompts.texts))
    refuse_changes(changed_settings(config, output_dir), output_dir)
    check_folder(output_dir, "output_dir")
    given = check_files(output_dir, config.responses, asked)
    if strangers := [id for id in given if id not in asked]:
        raise UserError(f"{config.responses}: no context for {strangers[0]!r} ({len(strangers)} such); set contexts")
    total = sum(map(len, given.values()))
    tokenizer = load_counting_tokenizer(config.tokenizer, config.judge, "judge")

    cache, ledger = CallCache(output_dir / CALLS), Ledger(config.max_cost)
    progress = Progress("score", len(given), len(given) + total, ledger)
    calls = Calls(make_chat(config.judge, cache, ledger), config.judge, tokenizer, cache, ledger, config.seed)
    embedder = make_embedder(config.embedder, cache, ledger)
    in_flight = config.judge.questions_at_once(CALLS_A_QUESTION)
    scorer = Scorer(config.longreward, config.judge, prompts, calls, embedder, tokenizer, remembered=in_flight)
    try:
        if unscored(output_dir, given):
            await all_settled(calls.start(), embedder.start())
        with locked(output_dir), Failures(output_dir / FAILURES) as failures:
            cache.open()
            ledger.carry_over(cache.totals())
            save_settings(config, output_dir)
            files = Files(output_dir, asked)
            try:
                import_responses(files, config.responses, asked)
                scoring = Scoring(scorer, prompts.texts, files, failures, progress)

                async def work(question: Question) -> None:
                    responses = files.responses(question.id)

                    async def respond(idx: str) -> Response:
                        return responses[idx]

                    await scoring.rewards(question, list(responses), respond)

                with progress:
                    progress.note(f"{total} responses to {len(given)} questions -> {output_dir / SCORES}")
                    answered = (question for question in _questions(config) if question.id in given)
                    tally = await run_questions(answered, len(given), work, in_flight, failures, progress, ledger)
                summary = {
                    "questions": len(given),
                    "failed": tally.failed,
                    "unfinished": tally.unfinished,
                    "interrupted": tally.interrupted,
                    "not_scored": progress.counts["not scored"],
                    **score_summary(files, given),
                    "calls": {stage: totals._asdict() for stage, totals in ledger.stages.items()},
                    "cost": ledger.spent,
                    "seconds": round(time.monotonic() - began, 1),
                }
            finally:
                files.close()
            write_whole(output_dir / "summary.json", [json.dumps(summary, indent=2), "\n"])
            lost = summary["not_scored"] > config.max_failure_rate * total
            return summary, tally.exit_code(summary["scored"], config.max_failure_rate) or int(lost)
    finally:
        await all_settled(calls.close(), embedder.close())  # before the cache: what still comes back is kept
        cache.close()


def _questions(config: ScoreConfig, faults: Faults = AT_ONCE) -> Iterator[Question]:
    """What the responses answer, each once: from the contexts' file, or from the responses' own contexts.

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
            raise UserError(f"{place}: an object with the text {field} is needed{hint}")
    if (id := Keys(()).of_response(row)) is None:
        raise UserError(f"{place}: the idx {row['idx']!r} must have the form <context's idx>-<number>")
    return Question(id, row["query"], (), row["context"])
