"""Whether passages of the context support the statements of a response: one statement a call, or several.

Statements of different responses are never in one call. Which of them could share a call depends on which response is
scored first, and the verdicts of a resumed run would not be those of a run that was never stopped. With one statement a
call, equal statements of several responses are equal calls, which the call cache answers once.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from lf_longpo.aio import all_settled
from lf_longpo.config import JudgingConfig
from lf_longpo.judging.verdict_requests import Judge, JudgeRequest
from lf_longpo.judging.verdicts import plain_brackets
from lf_longpo.longreward.judge_prompts import SEVERAL
from lf_longpo.longreward.parsing import support_level, support_levels
from lf_longpo.text.language import Language
from lf_longpo.text.prompt_set import PromptSet

LEVELS = {"Fully supported": 1.0, "Partially supported": 0.5, "No support": 0.0}

# The most new tokens of a statement's line, if a call checks several statements.
_LINE_TOKENS = 96
_PASSAGE = {"en": "[Passage {}]", "zh": "[段落 {}]"}

Passage = tuple[int, str]
"""Its number in the context, and its text."""


class StatementChecker:
    """Checks statements against their passages.

    Args:
        config: how to judge.
        prompts: the judge's prompts.
        judge: sends requests to the judge.
    """

    def __init__(self, config: JudgingConfig, prompts: PromptSet, judge: Judge) -> None:
        self._config = config
        self._prompts = prompts
        self._judge = judge

    async def check(
        self, id: str, language: Language, evidence: Mapping[str, Sequence[Passage]]
    ) -> dict[str, dict[str, Any]]:
        """The verdict on each statement.

        Args:
            id: of the question; names the cached calls.
            language: of the prompt.
            evidence: the passages to check each statement against.

        Returns:
            By statement, in the same order: `fact`, `score` (0, 0.5 or 1), `analysis` and `evidences`.

        Raises:
            Unreadable: a verdict cannot be read.
            CallFailed: a call was lost.
        """
        items, size = iter(evidence.items()), self._config.statements_per_call
        calls = iter(lambda: dict(islice(items, size)), {})
        verdicts = await all_settled(*(self._call(id, language, part) for part in calls))
        found = {statement: verdict for each in verdicts for statement, verdict in each.items()}
        return {
            statement: {
                "fact": statement,
                **found[statement],
                "evidences": [{"c_idx": i, "content": text} for i, text in passages],
            }
            for statement, passages in evidence.items()
        }

    async def _call(
        self, id: str, language: Language, evidence: Mapping[str, Sequence[Passage]]
    ) -> dict[str, dict[str, Any]]:
        """Verdicts on the statements of one call. Those that its reply lacks are checked alone."""
        found = await self._several(id, language, evidence) if len(evidence) > 1 else {}
        missing = [statement for statement in evidence if statement not in found]
        alone = await all_settled(*(self._alone(id, language, each, evidence[each]) for each in missing))
        return found | dict(zip(missing, alone, strict=True))

    async def _several(
        self, id: str, language: Language, evidence: Mapping[str, Sequence[Passage]]
    ) -> dict[str, dict[str, Any]]:
        shown = _shown(language, sorted({passage for passages in evidence.values() for passage in passages}))
        lines = "\n".join(f"{number}: {' '.join(text.split())}" for number, text in enumerate(evidence, 1))
        render = self._prompts.render(SEVERAL, language, statements=lines)
        if "[[" in plain_brackets(shown + lines):
            return {}  # the lines of the reply may quote what looks like a verdict
        limit = _LINE_TOKENS * len(evidence)
        request = JudgeRequest("faithfulness", id, render, limit, shown + lines, context=shown)
        reply = await self._judge.ask(request, lambda completion: completion.text)
        levels = support_levels(reply, len(evidence))
        return {
            statement: {"analysis": levels[number][1], "score": levels[number][0]}
            for number, statement in enumerate(evidence, 1)
            if number in levels
        }

    async def _alone(self, id: str, language: Language, statement: str, evidence: Sequence[Passage]) -> dict[str, Any]:
        shown = _shown(language, evidence)
        render = self._prompts.render("faithfulness", language, statement=statement)
        limit = self._config.analysis_tokens
        request = JudgeRequest("faithfulness", id, render, limit, shown + statement, context=shown)
        return await self._judge.verdict(request, LEVELS, support_level)


def _shown(language: Language, passages: Sequence[Passage]) -> str:
    return "\n\n".join(f"{_PASSAGE[language].format(number)}\n{text}" for number, (_, text) in enumerate(passages, 1))
