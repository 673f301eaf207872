"""The page of one pair: its responses, its evidence, its context and its prompt."""

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from lf_longpo.data.review import SIDES, Decision, response_of
from lf_longpo.files.journal import Row
from lf_longpo.run_folder.pair_sets import prompt_parts
from lf_longpo.text.differences import differences, visible, whole_letters
from lf_longpo.text.thinking import split_thought
from lf_longpo.viewer.context_pieces import context_pieces
from lf_longpo.viewer.index import PairLine, question_text
from lf_longpo.viewer.pair_evidence import EvidenceReader, PairEvidence
from lf_longpo.viewer.pair_filter import PairFilter
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
        self._evidence = EvidenceReader(site.records) if site.records else None

    def pair_page(self, request: Request) -> Response:
        """One pair with its evidence, its context and its prompt."""
        return self.page(request, "")

    def page(self, request: Request, fault: str) -> Response:
        """The page, with a message about a request that changed nothing."""
        site = self._site
        line, row = site.line(request)
        site.index.refresh()
        pair_filter, columns = PairFilter.of(request.query_params), site.pairs.columns
        decision = site.reviews.of(line.digest)
        row = row | dict((decision and decision.origin) or {})
        found = self._evidence.of(row) if self._evidence else None
        evidence = found or PairEvidence()
        prompt = prompt_parts(row, columns)
        numbers = site.index.numbers(pair_filter)
        at = numbers.index(line.number) if line.number in numbers else -1
        answer = row.get("answer", "")
        return site.page(
            "pair.html",
            line=line._replace(id=visible(line.id, 200)),
            question=visible(question_text(row, columns), _QUESTION),
            answer=visible(" / ".join(map(str, answer)) if isinstance(answer, list) else str(answer), _QUESTION),
            sides=self._sides(line, row, decision, evidence),
            context=context_pieces(evidence.context, evidence.spans) if evidence.context is not None else [],
            spans=evidence.spans,
            unmarked=evidence.unmarked,
            of_run=site.pairs.run is not None,
            still_read=self._evidence is not None and found is None,
            prompt=[part._replace(text=visible(part.text, _PROMPT)) for part in prompt],
            prompt_characters=sum(len(part.text) for part in prompt),
            decision=decision.verdict if decision else "undecided",
            fault=fault,
            question_query=urlencode({"id": line.id}),
            query=pair_filter.query,
            previous=numbers[at - 1] if at > 0 else None,
            following=numbers[at + 1] if 0 <= at < len(numbers) - 1 else None,
            position=at + 1,
            found=len(numbers),
        )

    def _sides(
        self, line: PairLine, row: Row, decision: Decision | None, evidence: PairEvidence
    ) -> list[dict[str, Any]]:
        """Both responses, edited ones with their new text, for the template."""
        texts = [response_of(row[self._site.pairs.columns[side]]) for side in SIDES]
        if decision and decision.verdict == "edit":
            texts = [decision.chosen or "", decision.rejected or ""]
        replies = [split_thought(text) for text in texts]
        pieces = differences(*(visible(reply.answer, _RESPONSE) for reply in replies))
        return [
            {
                "name": side,
                "reward": None if line.gap is None else row[f"{side}_reward"],
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
