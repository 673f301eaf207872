"""The pages of `longpo view`: the list of pairs, one pair, and review decisions. Rendered on the server, no scripts."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lf_longpo.data.pairs import QUESTION_ID, question_of_pair
from lf_longpo.data.review import SIDES, Decision, Reviews, Verdict, response_of
from lf_longpo.files.journal import Row
from lf_longpo.report.page import REPORT, STYLE, templates
from lf_longpo.run_folder.pair_sets import PairSet, prompt_parts
from lf_longpo.text.differences import differences, visible, whole_letters
from lf_longpo.text.thinking import split_thought
from lf_longpo.viewer.context_pieces import context_pieces
from lf_longpo.viewer.index import SORTS, STATES, PairFilter, PairIndex, PairLine, question_text
from lf_longpo.viewer.pair_evidence import EvidenceReader, PairEvidence

_TEMPLATES = Path(__file__).parent / "templates"
# The number of pairs per page of the list.
_PAGE = 50
# The number of characters of a response, of a question and of a prompt that are shown.
_RESPONSE, _QUESTION, _PROMPT = 40_000, 10_000, 1_000_000
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# What the pages call a decision.
_VERDICTS = {"accept": "accepted", "reject": "rejected", "edit": "edited"}


class Pages:
    """The handlers of the pages.

    Args:
        pairs: the set of pairs.
        index: its index.
        reviews: the decisions about its pairs.
    """

    def __init__(self, pairs: PairSet, index: PairIndex, reviews: Reviews) -> None:
        self._pair_set = pairs
        self._index = index
        self._reviews = reviews
        self._evidence = EvidenceReader(pairs.run) if pairs.run else None
        environment = templates(_TEMPLATES)
        style = STYLE.read_text(encoding="utf-8") + (_TEMPLATES / "viewer.css").read_text(encoding="utf-8")
        environment.globals |= {"style": style, "name": pairs.name, "verdicts": _VERDICTS, "sorts": SORTS}
        self._templates = environment

    def list_page(self, request: Request) -> Response:
        """The list of the pairs that pass the request's filter."""
        self._index.refresh()
        pair_filter = _filter_of(request)
        numbers = self._index.numbers(pair_filter)
        last = max(1, -(-len(numbers) // _PAGE))
        page = min(max(1, _number_of(request.query_params.get("page"), 1)), last)
        lines = self._index.lines(numbers[(page - 1) * _PAGE : page * _PAGE])
        return self._page(
            "list.html",
            filter=pair_filter,
            query=_query(pair_filter),
            lines=[line._replace(id=visible(line.id, 80), question=visible(line.question, 300)) for line in lines],
            found=len(numbers),
            counts=self._index.counts(),
            whole=self._index.whole,
            unread=self._index.fault,
            run_goes_on=bool(self._pair_set.run and self._pair_set.run.summary() is None),
            states=STATES,
            page=page,
            last=last,
            report=bool(self._pair_set.run and (self._pair_set.run.path / REPORT).is_file()),
        )

    def pair_page(self, request: Request) -> Response:
        """One pair with its evidence, its context and its prompt."""
        return self._pair(request, "")

    async def decide(self, request: Request) -> Response:
        """Records a decision and redirects to the next pair that passes the filter."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, "This request came from another site. Use the buttons of this page.")
        form = await request.form(max_part_size=64 * 2**20)
        return await run_in_threadpool(self._decide, request, {name: str(value) for name, value in form.items()})

    def report_page(self, request: Request) -> Response:
        """The run's report."""
        path = self._pair_set.run.path / REPORT if self._pair_set.run else None
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no report. Run longpo report first.")
        return HTMLResponse(path.read_text(encoding="utf-8"), headers=_HEADERS)

    def _decide(self, request: Request, form: dict[str, str]) -> Response:
        line, row = self._line(request)
        if form.get("digest", line.digest) != line.digest:
            raise HTTPException(409, "The page shows an older version of this pair. Open the list of pairs again.")
        texts = [_as_sent(form.get(side, "")) for side in SIDES]
        verdict = form.get("decision", "")
        if verdict == "edit":
            if not all(text.strip() for text in texts) or texts[0] == texts[1]:
                return self._pair(request, "Both responses need a text, and the texts must differ. Nothing was saved.")
            originals = self._responses(row)
            # A response that was not edited keeps its own line breaks.
            texts = [
                original if text == _as_sent(original) else text
                for text, original in zip(texts, originals, strict=True)
            ]
            decision = Decision("accept") if texts == originals else Decision("edit", *texts)
        elif verdict in _VERDICTS:
            decision = Decision(cast(Verdict, verdict))
        elif verdict == "undecided":
            decision = None
        else:
            raise HTTPException(400, "Unknown decision.")
        pair_filter = _filter_of(request)
        numbers = self._index.numbers(pair_filter)  # before the decision, which can remove this pair from them
        self._reviews.decide(line.digest, line.id, decision)
        self._index.decide(line.digest, decision)
        following = numbers[numbers.index(line.number) + 1 :][:1] if line.number in numbers else []
        target = f"/pair/{following[0]}" if following and decision else f"/pair/{line.number}"
        return RedirectResponse(f"{target}?{_query(pair_filter)}", 303)

    def _pair(self, request: Request, fault: str) -> Response:
        line, row = self._line(request)
        self._index.refresh()
        pair_filter, columns = _filter_of(request), self._pair_set.columns
        decision = self._reviews.of(line.digest)
        found = self._evidence.of(row) if self._evidence else None
        evidence = found or PairEvidence()
        prompt = prompt_parts(row, columns)
        numbers = self._index.numbers(pair_filter)
        at = numbers.index(line.number) if line.number in numbers else -1
        answer = row.get("answer", "")
        return self._page(
            "pair.html",
            line=line._replace(id=visible(line.id, 200)),
            question=visible(question_text(row, columns), _QUESTION),
            answer=visible(" / ".join(map(str, answer)) if isinstance(answer, list) else str(answer), _QUESTION),
            sides=self._sides(line, row, decision, evidence),
            context=context_pieces(evidence.context, evidence.spans) if evidence.context is not None else [],
            spans=evidence.spans,
            unmarked=evidence.unmarked,
            of_run=self._pair_set.run is not None,
            still_read=self._evidence is not None and found is None,
            prompt=[part._replace(text=visible(part.text, _PROMPT)) for part in prompt],
            prompt_characters=sum(len(part.text) for part in prompt),
            decision=decision.verdict if decision else "undecided",
            fault=fault,
            query=_query(pair_filter),
            previous=numbers[at - 1] if at > 0 else None,
            following=numbers[at + 1] if 0 <= at < len(numbers) - 1 else None,
            position=at + 1,
            found=len(numbers),
            of_question=self._index.numbers_of_question(question_of_pair(row) or "") if QUESTION_ID in row else [],
        )

    def _sides(
        self, line: PairLine, row: Row, decision: Decision | None, evidence: PairEvidence
    ) -> list[dict[str, Any]]:
        """Both responses, edited ones with their new text, for the template."""
        texts = self._responses(row)
        if decision and decision.verdict == "edit":
            texts = [decision.chosen or "", decision.rejected or ""]
        replies = [split_thought(text) for text in texts]
        pieces = differences(*(visible(reply.answer, _RESPONSE) for reply in replies))
        return [
            {
                "name": side,
                "reward": getattr(line, f"{side}_reward"),
                "characters": len(text),
                "thought": visible(reply.thought, _RESPONSE),
                "pieces": own_pieces,
                "text": whole_letters(text),
                "note": evidence.notes.get(side, ""),
                "scores": [
                    score._replace(analysis=visible(score.analysis, _RESPONSE))
                    for score in evidence.scores.get(side, [])
                ],
                "statements": [
                    statement._replace(
                        text=visible(statement.text, _RESPONSE), analysis=visible(statement.analysis, _RESPONSE)
                    )
                    for statement in evidence.statements.get(side, [])
                ],
            }
            for side, text, reply, own_pieces in zip(SIDES, texts, replies, pieces, strict=True)
        ]

    def _responses(self, row: Row) -> list[str]:
        """The chosen and the rejected response."""
        columns = self._pair_set.columns
        return [response_of(row[columns[side]], columns.get("content_tag")) for side in SIDES]

    def _line(self, request: Request) -> tuple[PairLine, Row]:
        lines = self._index.lines([request.path_params["number"]])
        if not lines:
            raise HTTPException(404, "There is no pair with this number, or it is not read yet. Try again later.")
        row = self._index.row(lines[0])
        if row is None:
            raise HTTPException(409, "The file has changed. Open the list of pairs to read it again.")
        return lines[0], row

    def _page(self, template: str, **values: Any) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(**values), headers=_HEADERS)


class AllowedHosts:
    """Middleware that refuses requests for other hosts, so that another site's domain cannot point to this server.

    Args:
        app: the application.
        hosts: the allowed names and addresses.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles an ASGI connection."""
        if (
            scope["type"] == "http"
            and urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname not in self._hosts
        ):
            await PlainTextResponse("This host is not allowed.", 400)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def make_app(pairs: PairSet, index: PairIndex, reviews: Reviews, hosts: Collection[str] | None) -> Starlette:
    """The application.

    Args:
        pairs: the set of pairs.
        index: its index.
        reviews: the decisions about its pairs.
        hosts: the allowed host names of requests; None for any.
    """
    pages = Pages(pairs, index, reviews)
    middleware = [Middleware(AllowedHosts, hosts=hosts)] if hosts else []
    routes = [
        Route("/", pages.list_page),
        Route("/pair/{number:int}", pages.pair_page),
        Route("/pair/{number:int}", pages.decide, methods=["POST"]),
        Route("/report", pages.report_page),
    ]
    return Starlette(routes=routes, middleware=middleware)


def _filter_of(request: Request) -> PairFilter:
    values = request.query_params
    state, sort = values.get("state", "all"), values.get("sort", "number")
    return PairFilter(
        values.get("text", "").strip(),
        state if state in STATES else "all",
        _float_of(values.get("least_gap")),
        _float_of(values.get("most_gap")),
        sort if sort in SORTS else "number",
    )


def _query(pair_filter: PairFilter) -> str:
    default = PairFilter()._asdict()
    return urlencode({name: value for name, value in pair_filter._asdict().items() if value != default[name]})


def _as_sent(text: str) -> str:
    """A text as a browser's form sends it, with line breaks as \\n."""
    return whole_letters(text).replace("\r\n", "\n").replace("\r", "\n")


def _number_of(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default


def _float_of(text: str | None) -> float | None:
    try:
        return float(text) if text and text.strip() else None
    except ValueError:
        return None
