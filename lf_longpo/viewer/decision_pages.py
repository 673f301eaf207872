"""Recording and undoing review decisions."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lf_longpo.data.choices import kept_origin
from lf_longpo.data.review import SIDES, Decision, Verdict
from lf_longpo.files.journal import Row
from lf_longpo.viewer.pair_filter import PairFilter
from lf_longpo.viewer.pair_pages import PairPages, as_sent, shown_texts
from lf_longpo.viewer.place import Place, address
from lf_longpo.viewer.site import VERDICTS, Site

_LEAVING = ("previous", "next", "list")
# What can be decided about all pairs of a list, with its name on a button.
_BULK = {"accept": "Accept", "reject": "Reject"}


class DecisionPages:
    """The handlers of decisions.

    Args:
        site: what all pages share.
        pair_pages: shows the pair again if a request changed nothing.
    """

    def __init__(self, site: Site, pair_pages: PairPages) -> None:
        self._site = site
        self._pair_pages = pair_pages

    async def decide(self, request: Request) -> Response:
        """Records a decision about a pair, or leaves the pair; redirects to the next pair that passes the filter."""
        return await run_in_threadpool(self._decide, request, await form_of(request))

    async def undo(self, request: Request) -> Response:
        """Undoes a change; redirects to its pair, or to the list."""
        return await run_in_threadpool(self._undo, request, await form_of(request))

    async def decide_all(self, request: Request) -> Response:
        """Records a decision about all pairs that pass the filter; redirects to the list."""
        return await run_in_threadpool(self._decide_all, request, await form_of(request))

    def question_page(self, request: Request) -> Response:
        """Asks whether to decide about all pairs that pass the filter."""
        return self._question(request, request.query_params.get("decision", ""))

    def _question(self, request: Request, verdict: str, fault: str = "", comment: str = "") -> Response:
        if verdict not in _BULK:
            raise HTTPException(400, "Unknown decision.")
        pair_filter = PairFilter.of(request.query_params)
        digests = self._site.index.digests(pair_filter)
        decisions = map(self._site.reviews.of, digests)
        pairs = "the only pair" if len(digests) == 1 else f"all {len(digests):,} pairs"
        return self._site.page(
            "decide.html",
            filter=pair_filter,
            query=address("", pair_filter.query, _page_of(request)).removeprefix("?"),
            question=f"{_BULK[verdict]} {pairs}?",
            button=f"{_BULK[verdict]} {pairs}",
            decision=verdict,
            states=Counter(decision.verdict if decision else "undecided" for decision in decisions),
            matching=_fingerprint(digests),
            fault=fault,
            comment=comment,
        )

    def _decide(self, request: Request, form: dict[str, str]) -> Response:
        line, row = self._site.line(request)
        if form.get("digest", line.digest) != line.digest:
            raise HTTPException(409, "The page shows an older version of this pair. Open the list of pairs again.")
        current = self._site.reviews.of(line.digest)
        action = form.get("discard") or form.get("decision") or form.get("go", "")
        if action not in (*VERDICTS, "undecided", *_LEAVING):
            raise HTTPException(400, "Unknown decision.")
        changed = _changed_fields(form, row, self._site.pairs.columns, current)
        lost = changed if action in (*_LEAVING, "undecided") else changed - {"comment"}
        if lost and action != "edit" and "discard" not in form:
            return self._pair_pages.page(request, typed=form, refused=action)
        place = Place(self._site.index, PairFilter.of(request.query_params), line.number)
        if action in _LEAVING:
            return RedirectResponse(self._leave(action, place, request), 303)
        decision: Decision | None = None
        if action == "edit":
            texts = [as_sent(form.get(side, "")) for side in SIDES]
            if not all(text.strip() for text in texts) or texts[0] == texts[1]:
                message = "Both responses need a text, and the texts must differ. Nothing was saved."
                return self._pair_pages.page(request, message, form)
            originals = list(shown_texts(row, self._site.pairs.columns, None).values())
            decision = _edited(texts, originals, current)
        elif action != "undecided":
            decision = Decision(cast(Verdict, action))
        if decision:
            # Buttons without a field for a comment keep the comment.
            comment = form.get("comment", current.comment if current else "")
            decision = decision._replace(comment=as_sent(comment).strip())
        change = self._site.reviews.decide(line.digest, line.id, decision)
        self._site.index.decide({line.digest: self._site.reviews.of(line.digest)})
        if decision:
            return RedirectResponse(place.next_address(change), 303)
        return RedirectResponse(_pair_address(request, line.number, f"changed={change}"), 303)

    def _leave(self, action: str, place: Place, request: Request) -> str:
        if action == "list":
            return place.list_address
        if action == "previous" and place.previous:
            return _pair_address(request, place.previous)
        return place.next_address()

    def _undo(self, request: Request, form: dict[str, str]) -> Response:
        change = form.get("change", "")
        restored = self._site.reviews.undo(change)
        self._site.index.decide(restored)
        number = self._site.index.number_of(next(iter(restored))) if len(restored) == 1 else None
        undone = f"undone={len(restored)}"
        if number is not None:
            return RedirectResponse(_pair_address(request, number, undone), 303)
        return RedirectResponse(address("/", PairFilter.of(request.query_params).query, _page_of(request), undone), 303)

    def _decide_all(self, request: Request, form: dict[str, str]) -> Response:
        verdict, comment = form.get("decision", ""), as_sent(form.get("comment", "")).strip()
        pair_filter, reviews = PairFilter.of(request.query_params), self._site.reviews
        digests = self._site.index.digests(pair_filter)
        if verdict not in _BULK or form.get("matching") != _fingerprint(digests):
            return self._question(request, verdict, "The list has changed meanwhile. Nothing was decided.", comment)
        # A pair that has the decision already keeps its reviewer, and a pair with a comment keeps it if there is no new
        # one.
        alike: dict[str, list[tuple[str, str]]] = {}
        for digest, id in digests.items():
            current = reviews.of(digest)
            if current is None or current.verdict != verdict or comment:
                alike.setdefault(comment or (current.comment if current else ""), []).append((digest, id))
        change = ""
        for own, pairs in alike.items():
            change = reviews.decide_all(pairs, Decision(cast(Verdict, verdict), comment=own), change)
        self._site.index.decide({digest: reviews.of(digest) for digest in digests})
        return RedirectResponse(address("/", pair_filter.query, _page_of(request), f"changed={change}"), 303)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form of these pages.

    Raises:
        HTTPException: another site sent it.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "This request came from another site. Use the buttons of this page.")
    form = await request.form(max_part_size=64 * 2**20)
    return {name: str(value) for name, value in form.items()}


def _changed_fields(
    form: Mapping[str, str], row: Row, columns: Mapping[str, str], current: Decision | None
) -> set[str]:
    """The fields of a form with another text than the page had shown."""
    shown = {**shown_texts(row, columns, current), "comment": current.comment if current else ""}
    return {name for name, text in shown.items() if name in form and as_sent(form[name]) != as_sent(text)}


def _edited(texts: list[str], originals: list[str], current: Decision | None) -> Decision:
    """The decision about a pair that was edited. A response that was not edited keeps its own line breaks."""
    texts = [original if text == as_sent(original) else text for text, original in zip(texts, originals, strict=True)]
    origin = kept_origin(texts, originals, current)
    return Decision("accept") if texts == originals else Decision("edit", texts[0], texts[1], origin=origin)


def _fingerprint(digests: Mapping[str, str]) -> str:
    """Identifies a set of pairs, so that no other pairs are decided than those that a page had counted."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _pair_address(request: Request, number: int, parameter: str = "") -> str:
    return address(f"/pair/{number}", PairFilter.of(request.query_params).query, parameter)


def _page_of(request: Request) -> str:
    page = request.query_params.get("page", "")
    return f"page={page}" if page.isdecimal() else ""
