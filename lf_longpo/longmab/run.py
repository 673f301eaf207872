"""LongMab-PO as a generation method: its models, journals and summary around the chain of one question."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import GenerateConfig
from lf_longpo.data.pairs import Pairs
from lf_longpo.data.questions import Source
from lf_longpo.data.records import Question
from lf_longpo.engine.pipeline import Failures
from lf_longpo.engine.protocol import Tools
from lf_longpo.files.run_dir import refuse_changed_questions
from lf_longpo.longmab.estimate import estimate_longmab
from lf_longpo.longmab.method import PROBES, ROLLOUTS, Journals, LongMab, Prompts, all_rolled_out, bandit_summary
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.factory import make_chat
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LongMabRun:
    """A `Method`; see there for what each part does.

    Raises:
        UserError: a prompt template cannot be used.
    """

    stages = ("probe", "rollout", "pairs")
    repairs = ()

    def __init__(self, config: GenerateConfig, until: str) -> None:
        self._config = config
        self._until = until
        self.source = Source(config.input, config.input_split, True, config.start, config.end)
        self._prompts = Prompts(config.longmab)
        self._journals: Journals | None = None
        self.asked = self._prompts.texts
        # More questions than calls: none of the slots is idle while a question is chunked, and at the run's end there
        # are chains enough to fill them all until the last calls.
        self.in_flight = 2 * config.policy.calls_at_once

    def check(self, digests: Mapping[str, str]) -> int:
        """A probe and the rounds of each question."""
        refuse_changed_questions(digests, self._config.output_dir / PROBES)
        self._ids = list(digests)
        return len(digests) * (1 if self._until == "probe" else self._config.longmab.rounds + 1)

    def estimate(self, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Of a run in which every probe is kept."""
        return estimate_longmab(self._config, self.source, self._prompts, tokenizer)

    def equip(self, tools: Tools) -> None:
        """Policy and embedder."""
        config = self._config
        self._tools = tools
        policy = make_chat(config.policy, tools.cache, tools.ledger)
        self._calls = Calls(policy, config.policy, tools.tokenizer, tools.cache, tools.ledger, config.seed)
        self._embedder = make_embedder(config.embedder, tools.cache, tools.ledger)

    async def start(self) -> None:
        """Nothing where all roll-outs are there."""
        config = self._config
        if not all_rolled_out(config.output_dir, self._ids, config.longmab.rounds):
            await self._calls.start()
            if config.longmab.init != "random":
                await self._embedder.start()

    def open(self, pairs: Pairs, failures: Failures) -> list[str]:
        """Probes and roll-outs."""
        config, tools = self._config, self._tools
        self._journals = Journals(config.output_dir)
        self._chain = LongMab(
            config.longmab,
            config.seed,
            self._prompts,
            self._calls,
            self._embedder,
            tools.tokenizer,
            self._journals,
            pairs,
            tools.progress,
            self._until,
            config.pairs.allow_truncated,
        )
        skipped = self._journals.skipped()
        lost = [f"{skipped} lines of the journals cannot be read; their work is done again"] if skipped else []
        return [
            *lost,
            f"policy {config.policy.model} ({config.policy.backend})",
            f"  probe    -> {config.output_dir / PROBES}",
            f"  roll-out -> {config.output_dir / ROLLOUTS} ({config.longmab.rounds} rounds a question)",
        ]

    async def work(self, question: Question) -> None:
        """The chain of one question."""
        await self._chain.work(question)

    def summary(self) -> dict[str, Any]:
        """Counts, rewards and arms."""
        counts = self._tools.progress.counts
        return {
            "left_out": counts["left out"],
            "all_equal": counts["all equal"],
            "cut_off": counts["cut off"],
            "gold_in_every_text": counts["gold in every text"],
            **bandit_summary(self._journals, self._ids, self._config.longmab.rounds),
        }

    async def close(self) -> None:
        """Journals and models."""
        if self._journals:
            self._journals.close()
        await all_settled(self._calls.close(), self._embedder.close())
