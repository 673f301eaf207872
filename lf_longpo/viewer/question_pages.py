"""The list of a run's questions, the page of one question, and choosing a side of its pair from its responses."""

from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lf_longpo.data.choices import choice_key, chosen_side, replaced_side, responses_of
from lf_longpo.data.records import Question, ScoredResponse
from lf_longpo.data.review import SIDES, Decision
from lf_longpo.errors import UserError, first_line
from lf_longpo.run_folder.question_records import QuestionLine, QuestionRecords, QuestionResponse
from lf_longpo.run_folder.shards import SHARDS
from lf_longpo.text.differences import visible, whole_letters
from lf_longpo.text.thinking import split_thought
from lf_longpo.viewer.decision_pages import form_of
from lf_longpo.viewer.gold_marks import context_parts, marked
from lf_longpo.viewer.index import PairLine
from lf_longpo.viewer.paging import page_of
from lf_longpo.viewer.pair_evidence import chunks_of_run
from lf_longpo.viewer.pair_pages import shown_texts
from lf_longpo.viewer.place import address
from lf_longpo.viewer.question_index import SORTS, STATES, QuestionFilter, QuestionIndex, state_of
from lf_longpo.viewer.response_block import response_block
from lf_longpo.viewer.site import VERDICTS, Site

# Seconds that a page waits for the run's files to be read.
_PATIENCE = 2.0
# The number of characters of a question, of a reason and of a probe that are shown.
_QUESTION, _REASON, _PROBE = 10_000, 2_000, 40_000


class QuestionPages:
    """The handlers of the pages about questions.

    Args:
        site: what all pages share.
        records: the run's questions.
    """

    def __init__(self, site: Site, records: QuestionRecords) -> None:
        self._site = site
        self._records = records
        self._index = QuestionIndex(records, site.reviews)

    def list_page(self, request: Request) -> Response:
        """The list of the questions that pass the request's filter."""
        whole = self._read_on()
        question_filter = QuestionFilter.of(request.query_params)
        found, counts = self._index.found(question_filter)
        page, choices = page_of(request, len(found)), self._site.reviews.choices()
        rows = [
            {
                "line": line._replace(id=visible(line.id, 80), text=visible(line.text, 300)),
                "reason": visible(line.reason, 200),
                "state": state_of(line, choices),
                "address": _address(line.id, question_filter),
            }
            for line in found[page.shown]
        ]
        run = self._records.run
        run_goes_on = run.summary() is None
        return self._site.page(
            "questions.html",
            filter=question_filter,
            query=question_filter.query,
            rows=rows,
            counts={state: counts[state] for state in STATES if counts[state]},
            total=sum(counts.values()),
            found=len(found),
            whole=whole,
            unread=self._records.fault,
            run_goes_on=run_goes_on,
            on_ray=run_goes_on and (run.path / SHARDS).is_dir(),
            states=STATES,
            question_sorts=SORTS,
            page=page.number,
            last=page.last,
        )

    def question_page(self, request: Request) -> Response:
        """One question with its responses and its context."""
        return self._question(request, "")

    async def choose(self, request: Request) -> Response:
        """Makes a response chosen or rejected, and redirects to the question."""
        return await run_in_threadpool(self._choose, request, await form_of(request))

    def _choose(self, request: Request, form: dict[str, str]) -> Response:
        line = self._line(request)
        side = form.get("side", "")
        number = next(iter(self._site.index.numbers_of_question(line.id)), None)
        if form.get("pair", "") != str(number or ""):
            raise HTTPException(409, "The page shows an older version of this question. Open it again.")
        anchor = "decision"
        try:
            if side == "undecided":
                self._make_undecided(line, number)
            elif side in SIDES:
                response = self._response(line.id, form.get("index", ""))
                anchor = f"response-{response.index}"
                self._decide(line, number, side, response)
            else:
                raise HTTPException(400, "Unknown decision.")
        except UserError as error:
            return self._question(request, f"{first_line(error)}. Nothing was saved.")
        question = _address(line.id, QuestionFilter.of(request.query_params))
        return RedirectResponse(f"{question}#{anchor}", 303)

    def _decide(self, line: QuestionLine, number: int | None, side: str, response: QuestionResponse) -> None:
        reviews = self._site.reviews
        scored = ScoredResponse(response.text, response.reward or 0.0, response.index, response.thought)
        if number is None:
            key = choice_key(line.id)
            reviews.decide(key, line.id, chosen_side(reviews.of(key), side, scored))
            return
        pair_line, row = self._site.pair(number)
        texts = list(shown_texts(row, self._site.pairs.columns, None).values())
        written = ScoredResponse(_written(response, texts), scored.reward, scored.index)
        decision = replaced_side(row, texts, reviews.of(pair_line.digest), side, written)
        reviews.decide(pair_line.digest, line.id, decision)
        self._site.index.decide({pair_line.digest: reviews.of(pair_line.digest)})

    def _make_undecided(self, line: QuestionLine, number: int | None) -> None:
        digest = choice_key(line.id) if number is None else self._site.pair(number)[0].digest
        self._site.reviews.decide(digest, line.id, None)
        if number is not None:
            self._site.index.decide({digest: None})

    def _question(self, request: Request, fault: str) -> Response:
        line = self._line(request)
        question_filter = QuestionFilter.of(request.query_params)
        found, _ = self._index.found(question_filter)
        at = next((i for i, other in enumerate(found) if other.id == line.id), -1)
        question, unread = self._full(line.id)
        answers = question.answers if question else ()
        responses = self._records.responses(line.id)
        numbers = self._site.index.numbers_of_question(line.id)
        decision, pair, sides = self._decision(line, numbers)
        round_shown = request.query_params.get("chunks", "")
        chunks, unmarked = self._chunks(question, responses)
        context = question.context if question else ""
        lost = self._records.lost_responses(line.id)
        probe = self._records.probe(line.id)
        around = [found[i] if 0 <= i < len(found) else None for i in (at - 1, at + 1)] if at >= 0 else [None, None]
        return self._site.page(
            "question.html",
            line=line._replace(id=visible(line.id, 200)),
            state=state_of(line, self._site.reviews.choices()),
            reason=visible(line.reason, _REASON),
            question=visible(question.question if question else line.text, _QUESTION),
            answer=visible(" / ".join(answers), _QUESTION),
            longmab=self._records.run.config.method == "longmab",
            responses=[
                response_block(response, answers, sides, context, chunks, str(response.index) == round_shown)
                for response in responses
            ],
            lost=[(visible(idx, 80), visible(why, _REASON)) for idx, why in lost],
            probe=probe and {"kept": probe["kept"], "pieces": marked(probe["probe"], answers, _PROBE)},
            context=context_parts(context, answers, chunks),
            unmarked=unmarked,
            unread=unread,
            decision=decision,
            verdict=VERDICTS.get(decision.verdict, "") if decision else "",
            pair=pair,
            further=numbers[1:],
            sides=sides,
            fault=fault,
            query=question_filter.query,
            address=_address(line.id, question_filter),
            previous=around[0] and _address(around[0].id, question_filter),
            following=around[1] and _address(around[1].id, question_filter),
            position=at + 1,
            found=len(found),
        )

    def _decision(
        self, line: QuestionLine, numbers: list[int]
    ) -> tuple[Decision | None, PairLine | None, dict[str, dict[str, Any]]]:
        """The decision, the first pair of the run, and the index and reward of each side of the present pair."""
        reviews = self._site.reviews
        if not numbers:
            choice = reviews.of(choice_key(line.id))
            chosen = responses_of(choice) if choice else {}
            return choice, None, {side: {"index": r.index, "reward": r.reward} for side, r in chosen.items()}
        pair_line, row = self._site.pair(numbers[0])
        decision = reviews.of(pair_line.digest)
        row = row | dict((decision and decision.origin) or {})
        return (
            decision,
            pair_line,
            {side: {"index": row.get(f"{side}_index"), "reward": row.get(f"{side}_reward")} for side in SIDES},
        )

    def _full(self, id: str) -> tuple[Question | None, str]:
        """The question with its context, or why there is none."""
        try:
            question = self._records.question(id)
        except UserError as error:
            return None, first_line(error)
        return question, "" if question else "the question is no longer in the run's input"

    def _chunks(
        self, question: Question | None, responses: list[QuestionResponse]
    ) -> tuple[list[tuple[int, int]], str]:
        """The start and end of the context's chunks, or why they are unknown."""
        number = next((response.chunks for response in responses if response.chunks), 0)
        if question is None or not number:
            return [], ""
        try:
            return chunks_of_run(self._records.run, question.context, number), ""
        except UserError as error:
            return [], first_line(error)

    def _response(self, id: str, index: str) -> QuestionResponse:
        found = next((response for response in self._records.responses(id) if str(response.index) == index), None)
        if found is None:
            raise HTTPException(404, "There is no such response.")
        if found.reward is None or not found.text.strip():
            raise UserError("a response without a text or a reward cannot be in a pair; use another response")
        return found

    def _line(self, request: Request) -> QuestionLine:
        whole = self._read_on()
        self._site.index.reader.refresh()
        line = self._records.line(request.query_params.get("id", ""))
        if line is None:
            late = "" if whole else ", or it is not read yet. Try again later"
            raise HTTPException(404, f"There is no question with this id{late}.")
        return line

    def _read_on(self) -> bool:
        """Reads what is new in the run's files; whether they were read to the end once."""
        self._records.start()
        whole = self._records.wait(_PATIENCE)
        if whole:
            self._records.read_on()
        return whole


def _address(id: str, question_filter: QuestionFilter) -> str:
    return address("/question", urlencode({"id": whole_letters(id)}), question_filter.query)


def _written(response: QuestionResponse, texts: list[str]) -> str:
    """The text of a response in a pair: with its thought, in the form of the pair's responses, if these have one."""
    for text in texts:
        thought, answer = split_thought(text)
        if thought and response.thought and text.endswith(answer):
            opening, _, rest = text.partition(thought)
            return f"{opening}{response.thought}{rest.removesuffix(answer)}{response.text}"
    return response.text
