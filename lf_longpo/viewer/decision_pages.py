"""Recording review decisions."""

from typing import cast
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lf_longpo.data.choices import kept_origin
from lf_longpo.data.review import SIDES, Decision, Verdict, response_of
from lf_longpo.text.differences import whole_letters
from lf_longpo.viewer.pair_filter import PairFilter
from lf_longpo.viewer.pair_pages import PairPages
from lf_longpo.viewer.site import VERDICTS, Site


class DecisionPages:
    """The handlers of decisions.

    Args:
        site: what all pages share.
        pair_pages: shows the pair again after a mistake.
    """

    def __init__(self, site: Site, pair_pages: PairPages) -> None:
        self._site = site
        self._pair_pages = pair_pages

    async def decide(self, request: Request) -> Response:
        """Records a decision and redirects to the next pair that passes the filter."""
        return await run_in_threadpool(self._decide, request, await form_of(request))

    def _decide(self, request: Request, form: dict[str, str]) -> Response:
        site = self._site
        line, row = site.line(request)
        if form.get("digest", line.digest) != line.digest:
            raise HTTPException(409, "The page shows an older version of this pair. Open the list of pairs again.")
        texts = [_as_sent(form.get(side, "")) for side in SIDES]
        verdict = form.get("decision", "")
        if verdict == "edit":
            if not all(text.strip() for text in texts) or texts[0] == texts[1]:
                message = "Both responses need a text, and the texts must differ. Nothing was saved."
                return self._pair_pages.page(request, message)
            originals = [response_of(row[site.pairs.columns[side]]) for side in SIDES]
            # A response that was not edited keeps its own line breaks.
            texts = [
                original if text == _as_sent(original) else text
                for text, original in zip(texts, originals, strict=True)
            ]
            origin = kept_origin(texts, originals, site.reviews.of(line.digest))
            decision = Decision("accept") if texts == originals else Decision("edit", *texts, origin)
        elif verdict in VERDICTS:
            decision = Decision(cast(Verdict, verdict))
        elif verdict == "undecided":
            decision = None
        else:
            raise HTTPException(400, "Unknown decision.")
        pair_filter = PairFilter.of(request.query_params)
        numbers = site.index.numbers(pair_filter)  # before the decision, which can remove this pair from them
        site.reviews.decide(line.digest, line.id, decision)
        site.index.decide(line.digest, decision)
        following = numbers[numbers.index(line.number) + 1 :][:1] if line.number in numbers else []
        target = f"/pair/{following[0]}" if following and decision else f"/pair/{line.number}"
        return RedirectResponse(f"{target}?{pair_filter.query}", 303)


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


def _as_sent(text: str) -> str:
    """A text as a browser's form sends it, with line breaks as \\n."""
    return whole_letters(text).replace("\r\n", "\n").replace("\r", "\n")
