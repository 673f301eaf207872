"""The page of one pair: its responses, its evidence, its context and its prompt."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from lf_longpo.data.pairs import QUESTION_ID, question_of_pair
from lf_longpo.data.review import SIDES, Decision, response_of
from lf_longpo.files.journal import Row
from lf_longpo.run_folder.pair_sets import prompt_parts, question_text
from lf_longpo.text.differences import differences, unmarked_note, visible, whole_letters
from lf_longpo.text.thinking import split_thought
from lf_longpo.viewer.context_pieces import context_pieces
from lf_longpo.viewer.display import display_of
from lf_longpo.viewer.index import PairLine
from lf_longpo.viewer.pair_evidence import EvidenceReader, PairEvidence
from lf_longpo.viewer.pair_filter import PairFilter
from lf_longpo.viewer.place import Place
from lf_longpo.viewer.site import Site

# The number of characters of a response, of a question and of a prompt that are shown.
_RESPONSE, _QUESTION, _PROMPT = 40_000, 10_000, 1_000_000


class PairPages:
    """The handler of a pair's page.

    Args:
        site: what all pages share.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._evidence = EvidenceReader(site.pairs.run) if site.pairs.run else None

    def pair_page(self, request: Request) -> Response:
        """One pair with its evidence, its context and its prompt."""
        return self.page(request)

    def page(
        self, request: Request, fault: str = "", typed: Mapping[str, str] | None = None, refused: str = ""
    ) -> Response:
        """The page.

        Args:
            request: names the pair and the list's filter; `edit` opens the fields.
            fault: a message about a request that changed nothing.
            typed: what was typed into the fields, which stays there.
            refused: the action that would have lost what was typed.
        """
        site = self._site
        line, row = site.line(request)
        site.index.reader.refresh()
        pair_filter, columns = PairFilter.of(request.query_params), site.pairs.columns
        decision = site.reviews.of(line.digest)
        row = row | dict((decision and decision.origin) or {})
        found = self._evidence.of(row) if self._evidence else None
        evidence = found or PairEvidence()
        prompt = prompt_parts(row, columns)
        place = Place(site.index, pair_filter, line.number)
        fields = {**shown_texts(row, columns, decision), "comment": decision.comment if decision else ""}
        answer = row.get("answer", "")
        sides = self._sides(line, row, decision, evidence)
        return site.page(
            "pair.html",
            line=line._replace(id=visible(line.id, 200)),
            question=visible(question_text(row, columns), _QUESTION),
            answer=visible(" / ".join(map(str, answer)) if isinstance(answer, list) else str(answer), _QUESTION),
            sides=sides,
            alike=unmarked_note((sides[0]["pieces"], sides[1]["pieces"])),
            search=pair_filter.text,
            display=display_of(request),
            context=context_pieces(evidence.context, evidence.spans) if evidence.context is not None else [],
            spans=evidence.spans,
            unmarked=evidence.unmarked,
            of_run=site.pairs.run is not None,
            still_read=self._evidence is not None and found is None,
            prompt=[part._replace(text=visible(part.text, _PROMPT)) for part in prompt],
            prompt_characters=sum(len(part.text) for part in prompt),
            decision=decision.verdict if decision else "undecided",
            comment=visible(decision.comment if decision else "", _QUESTION),
            reviewer=visible(decision.reviewer if decision else "", 80),
            fault=fault,
            question_query=urlencode({"id": whole_letters(question_of_pair(row) or line.id)}),
            of_question=site.index.numbers_of_question(question_of_pair(row) or "") if QUESTION_ID in row else [],
            refused=refused,
            edit="chosen" if typed else request.query_params.get("edit", ""),
            fields={name: whole_letters((typed or {}).get(name, text)) for name, text in fields.items()},
            unsaved=[name for name, text in fields.items() if as_sent((typed or {}).get(name, text)) != as_sent(text)],
            query=pair_filter.query,
            place=place,
            banner=site.banner(request),
        )

    def _sides(
        self, line: PairLine, row: Row, decision: Decision | None, evidence: PairEvidence
    ) -> list[dict[str, Any]]:
        """Both responses, edited ones with their new text, for the template."""
        texts = shown_texts(row, self._site.pairs.columns, decision).values()
        replies = [split_thought(text) for text in texts]
        pieces = differences(*(visible(reply.answer, _RESPONSE) for reply in replies))
        return [
            {
                "name": side,
                "reward": None if line.gap is None else row[f"{side}_reward"],
                "characters": len(text),
                "thought": visible(reply.thought, _RESPONSE),
                "pieces": own_pieces,
                "note": evidence.notes.get(side, ""),
                "scores": evidence.scores.get(side, []),
                "statements": evidence.statements.get(side, []),
            }
            for side, text, reply, own_pieces in zip(SIDES, texts, replies, pieces, strict=True)
        ]


def shown_texts(row: Row, columns: Mapping[str, str], decision: Decision | None) -> dict[str, str]:
    """The responses of a pair by side; those of an edited pair are the edited ones."""
    if decision and decision.verdict == "edit":
        return {"chosen": decision.chosen or "", "rejected": decision.rejected or ""}
    return {side: response_of(row[columns[side]], columns.get("content_tag")) for side in SIDES}


def as_sent(text: str) -> str:
    """A text as a browser's form sends it, with line breaks as \\n."""
    return whole_letters(text).replace("\r\n", "\n").replace("\r", "\n")
