"""The pages: a list of pairs, one pair, and what is decided about it; made on the server, without any script."""

from collections.abc import Collection
from pathlib import Path
from typing import Any
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

from lf_longpo.data.review import SIDES, Decision, Reviews, response_of
from lf_longpo.files.journal import Row
from lf_longpo.report.page import REPORT, STYLE, templates
from lf_longpo.run_folder.pair_sets import Viewed, prompt_of
from lf_longpo.text.differences import differences, visible, whole_letters
from lf_longpo.viewer.index import SORTS, STATES, Line, PairIndex, Wanted, question_of
from lf_longpo.viewer.marking import marked
from lf_longpo.viewer.source_spans import Evidence, Witness

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = 50
# Characters of a response, of a question and of a prompt that are shown.
_RESPONSE, _QUESTION, _PROMPT = 40_000, 10_000, 1_000_000
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_VERDICTS = {"accept": "accepted", "reject": "rejected", "edit": "edited"}


class Pages:
    """Answers requests.

    Args:
        viewed: what is shown.
        index: its pairs.
        reviews: decisions about them.
    """

    def __init__(self, viewed: Viewed, index: PairIndex, reviews: Reviews) -> None:
        self._viewed = viewed
        self._index = index
        self._reviews = reviews
        self._witness = Witness(viewed.run) if viewed.run else None
        environment = templates(_TEMPLATES)
        style = STYLE.read_text(encoding="utf-8") + (_TEMPLATES / "viewer.css").read_text(encoding="utf-8")
        environment.globals |= {"style": style, "name": viewed.name, "verdicts": _VERDICTS, "sorts": SORTS}
        self._templates = environment

    def list(self, request: Request) -> Response:
        """A page of the pairs that are wanted."""
        wanted = _wanted(request)
        numbers = self._index.numbers(wanted)
        last = max(1, -(-len(numbers) // _PAGE))
        page = min(max(1, _number(request.query_params.get("page"), 1)), last)
        lines = self._index.lines(numbers[(page - 1) * _PAGE : page * _PAGE])
        return self._page(
            "list.html",
            wanted=wanted,
            query=_query(wanted),
            lines=[line._replace(id=visible(line.id, 80), question=visible(line.question, 300)) for line in lines],
            found=len(numbers),
            counts=self._index.counts(),
            whole=self._index.whole,
            unread=self._index.fault,
            states=STATES,
            page=page,
            last=last,
            report=bool(self._viewed.run and (self._viewed.run.path / REPORT).is_file()),
        )

    def pair(self, request: Request) -> Response:
        """One pair, with what is around it."""
        return self._pair(request, "")

    async def decide(self, request: Request) -> Response:
        """Takes a decision, and goes on to the next pair that is wanted."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, "This came from another page.")
        form = await request.form(max_part_size=64 * 2**20)
        return await run_in_threadpool(self._decide, request, {name: str(value) for name, value in form.items()})

    def report(self, request: Request) -> Response:
        """The run's report."""
        path = self._viewed.run.path / REPORT if self._viewed.run else None
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no report.")
        return HTMLResponse(path.read_text(encoding="utf-8"), headers=_SAFE)

    def _decide(self, request: Request, form: dict[str, str]) -> Response:
        line, row = self._line(request)
        # As browsers send them.
        texts = [_sent(form.get(side, "")) for side in SIDES]
        verdict = form.get("decision", "")
        if verdict == "edit":
            if not all(text.strip() for text in texts) or texts[0] == texts[1]:
                return self._pair(request, "Both responses must be there, and must differ: nothing was changed.")
            own = [response_of(row[self._viewed.columns[side]]) for side in SIDES]
            # What was not touched stays as it is, line breaks and all.
            texts = [mine if text == _sent(mine) else text for text, mine in zip(texts, own, strict=True)]
            decision = Decision("accept") if texts == own else Decision("edit", *texts)
        elif verdict in _VERDICTS:
            decision = Decision(verdict)
        elif verdict == "undecided":
            decision = None
        else:
            raise HTTPException(400, "There is no such decision.")
        wanted = _wanted(request)
        numbers = self._index.numbers(wanted)  # before the decision takes this one out of them
        self._reviews.decide(line.digest, line.id, decision)
        self._index.decide(line.digest, decision)
        behind = numbers[numbers.index(line.number) + 1 :][:1] if line.number in numbers else []
        target = f"/pair/{behind[0]}" if behind and decision else f"/pair/{line.number}"
        return RedirectResponse(f"{target}?{_query(wanted)}", 303)

    def _pair(self, request: Request, fault: str) -> Response:
        line, row = self._line(request)
        wanted, columns = _wanted(request), self._viewed.columns
        decision = self._reviews.of(line.digest)
        own = [response_of(row[columns[side]]) for side in SIDES]
        edited = [decision.chosen, decision.rejected] if decision and decision.verdict == "edit" else own
        shown = [visible(text, _RESPONSE) for text in edited]
        known = self._witness.of(row) if self._witness else None
        evidence = known or Evidence()
        prompt = prompt_of(row, columns)
        numbers = self._index.numbers(wanted)
        at = numbers.index(line.number) if line.number in numbers else -1
        answer = row.get("answer", "")
        return self._page(
            "pair.html",
            line=line._replace(id=visible(line.id, 200)),
            question=visible(question_of(row, columns), _QUESTION),
            answer=visible(" / ".join(map(str, answer)) if isinstance(answer, list) else str(answer), _QUESTION),
            sides=[
                {
                    "name": side,
                    "reward": getattr(line, f"{side}_reward"),
                    "characters": len(text),
                    "pieces": pieces,
                    "text": whole_letters(text),
                    "note": evidence.notes.get(side, ""),
                    "judged": [one._replace(analysis=visible(one.analysis, _RESPONSE)) for one in judged],
                    "statements": [
                        one._replace(text=visible(one.text, _RESPONSE), analysis=visible(one.analysis, _RESPONSE))
                        for one in evidence.statements.get(side, [])
                    ],
                }
                for side, text, pieces, judged in zip(
                    SIDES, edited, differences(*shown), (evidence.judged.get(side, []) for side in SIDES), strict=True
                )
            ],
            context=marked(evidence.context, evidence.spans) if evidence.context is not None else [],
            spans=evidence.spans,
            of_run=self._viewed.run is not None,
            still_read=self._witness is not None and known is None,
            prompt=visible(prompt, _PROMPT),
            prompt_characters=len(prompt),
            decision=decision.verdict if decision else "undecided",
            fault=fault,
            query=_query(wanted),
            before=numbers[at - 1] if at > 0 else None,
            behind=numbers[at + 1] if 0 <= at < len(numbers) - 1 else None,
            place=at + 1,
            found=len(numbers),
        )

    def _line(self, request: Request) -> tuple[Line, Row]:
        lines = self._index.lines([request.path_params["number"]])
        if not lines:
            raise HTTPException(404, "There is no such pair, or it is not read yet.")
        row = self._index.row(lines[0])
        if row is None:
            raise HTTPException(409, "The file was written anew since it was opened: start longpo view again.")
        return lines[0], row

    def _page(self, template: str, **values: Any) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(**values), headers=_SAFE)


class OnlyAskedAs:
    """Answers requests only that ask for one of the given hosts: another site's page cannot get here by its own name.

    Args:
        app: answers them.
        hosts: names and addresses.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if (
            scope["type"] == "http"
            and urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname not in self._hosts
        ):
            await PlainTextResponse("This address is not served.", 400)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def make_app(viewed: Viewed, index: PairIndex, reviews: Reviews, hosts: Collection[str] | None) -> Starlette:
    """The application.

    Args:
        viewed: what is shown.
        index: its pairs.
        reviews: decisions about them.
        hosts: names that it may be asked by; None for any.
    """
    pages = Pages(viewed, index, reviews)
    middleware = [Middleware(OnlyAskedAs, hosts=hosts)] if hosts else []
    routes = [
        Route("/", pages.list),
        Route("/pair/{number:int}", pages.pair),
        Route("/pair/{number:int}", pages.decide, methods=["POST"]),
        Route("/report", pages.report),
    ]
    return Starlette(routes=routes, middleware=middleware)


def _wanted(request: Request) -> Wanted:
    asked = request.query_params
    state, sort = asked.get("state", "all"), asked.get("sort", "number")
    return Wanted(
        asked.get("text", "").strip(),
        state if state in STATES else "all",
        _share(asked.get("least_gap")),
        _share(asked.get("most_gap")),
        sort if sort in SORTS else "number",
    )


def _query(wanted: Wanted) -> str:
    default = Wanted()._asdict()
    return urlencode({name: value for name, value in wanted._asdict().items() if value != default[name]})


def _sent(text: str) -> str:
    """A text as it comes out of a browser's form."""
    return whole_letters(text).replace("\r\n", "\n").replace("\r", "\n")


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() else otherwise


def _share(text: str | None) -> float | None:
    try:
        return float(text) if text and text.strip() else None
    except ValueError:
        return None
