"""LongReward from Python: one object, one await."""

import hashlib
from pathlib import Path
from types import TracebackType

from lf_longpo.aio import Once, all_settled
from lf_longpo.config import ChatConfig, EmbedderConfig, JudgingConfig
from lf_longpo.errors import UserError
from lf_longpo.longreward.judge_prompts import prompts_for
from lf_longpo.longreward.scorer import Score, Scorer
from lf_longpo.models.cache import CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.factory import make_chat
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import load_counting_tokenizer

# How many contexts stay in memory with their passages and notes.
_REMEMBERED = 64


class LongRewardJudge:
    """Scores responses to long contexts on helpfulness, logicality, faithfulness and completeness (arXiv 2410.21252).

        config = ChatConfig(provider="zhipu", model="glm-4-plus", context_window=128_000)
        async with LongRewardJudge(config, tokenizer="zai-org/glm-4-9b-hf") as judge:
            score = await judge.score(context, query, answer)
            print(score.reward, score.scores["faithfulness"])

    Any number of `score` calls may run at the same time. The context is read and embedded once for all responses to it.

    Args:
        judge: the model that judges.
        embedder: finds the passages that a statement is checked against.
        longreward: how to judge.
        tokenizer: counts tokens for chunks. Default: the judge's model.
        seed: each call's own seed follows from it.
        cache: file that keeps finished calls; a later process does not repeat them. Default: none.

    Raises:
        UserError: settings that cannot work.
    """

    def __init__(
        self,
        judge: ChatConfig,
        embedder: EmbedderConfig = EmbedderConfig(),  # noqa: B008 frozen
        longreward: JudgingConfig = JudgingConfig(),  # noqa: B008 frozen
        tokenizer: str | None = None,
        seed: int = 42,
        cache: Path | None = None,
    ) -> None:
        counts = load_counting_tokenizer(tokenizer, judge, "judge")
        self.ledger = Ledger()
        """Calls and tokens so far, by stage."""
        self._cache = CallCache(cache)
        self._calls = Calls(
            make_chat(judge, self._cache, self.ledger), judge, counts, self._cache, self.ledger, seed, section="judge"
        )
        self._embedder = make_embedder(embedder, self._cache, self.ledger)
        prompts = prompts_for(longreward, judge)
        self._scorer = Scorer(longreward, judge, prompts, self._calls, self._embedder, counts, _REMEMBERED)
        self._started: Once[None] = Once(1)

    async def score(self, context: str, query: str, answer: str) -> Score:
        """Scores one response. Models are loaded or connected to by the first call.

        Args:
            context: the whole document.
            query: the question about it.
            answer: the response.

        Raises:
            Unreadable: the judge's verdict on a dimension cannot be read, or it found no statement in the response.
            CallFailed: a call was lost.
            UserError: a model cannot be used, or context or query is empty.
        """
        if not context.strip() or not query.strip():
            raise UserError("context and query must not be empty")
        await self._started.get(None, self._start)
        id = hashlib.sha256(f"{len(context)} {context}{query}".encode()).hexdigest()[:16]
        return await self._scorer.score(id, context, query, answer)

    async def close(self) -> None:
        """Closes models and connections, then the cache."""
        await all_settled(self._calls.close(), self._embedder.close())
        self._cache.close()

    async def __aenter__(self) -> "LongRewardJudge":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        await all_settled(self._calls.start(), self._embedder.start())
        self._cache.open()
        self.ledger.carry_over(self._cache.totals())
