"""The plan of a LongMab-PO run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from lf_longpo.config import ChatConfig, EmbedderConfig, LongMabGenerateConfig
from lf_longpo.data.questions import Source, check_questions, read_questions
from lf_longpo.engine.protocol import Sinks
from lf_longpo.engine.session import Session
from lf_longpo.files.run_dir import refuse_changed_questions
from lf_longpo.longmab.estimate import estimate_longmab
from lf_longpo.longmab.method import LongMab, Models, Prompts
from lf_longpo.longmab.rollout_files import PROBES, Journals, all_rolled_out
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LongMabPlan:
    """A `Plan`; see there.

    Args:
        config: the run's.
        until: the stage after which to stop.

    Raises:
        UserError: a prompt template or the input cannot be used, or a question has changed since the run began.
    """

    stages: ClassVar[Sequence[str]] = ("probe", "rollout", "pairs")
    redone: ClassVar[Sequence[str]] = ("pairs.", "policy.thinking")

    def __init__(self, config: LongMabGenerateConfig, until: str) -> None:
        self._config = config
        self._until = until
        self._prompts = Prompts(config.longmab)
        self.source = Source(config.input, config.input_split, True, config.start, config.end)
        self.digests = check_questions(self.source, self._prompts.texts)
        refuse_changed_questions(self.digests, config.output_dir / PROBES)
        self.steps = len(self.digests) * (1 if until == "probe" else config.longmab.rounds + 1)
        # More questions than calls at once: no slot is idle while a question is cut into chunks, and at the end of the
        # run enough chains are left to fill all slots. Chains that end early need more (bench_rollout.py --lean).
        self.in_flight = (2 if config.longmab.stop is None else 8) * config.policy.calls_at_once

    def estimate(self, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """The usage of a run in which every probe is kept."""
        return estimate_longmab(self._config, self.source, self._prompts, tokenizer)

    def models(self, session: Session, tokenizer: "PreTrainedTokenizerBase") -> Models:
        """Policy and embedder."""
        config = self._config
        return Models(session.chat(config.policy, tokenizer), session.embedder(config.embedder), tokenizer)

    def needed(self) -> Sequence[ChatConfig | EmbedderConfig]:
        """None where all rollouts are there."""
        config = self._config
        if all_rolled_out(config, read_questions(self.source)):
            return []
        return [config.policy] if config.longmab.init == "random" else [config.policy, config.embedder]

    @contextmanager
    def open(self, models: Models, sinks: Sinks) -> Iterator[LongMab]:
        """Opens the journals of probes and rollouts."""
        with Journals(self._config.output_dir) as journals:
            yield LongMab(self._config, self._until, self._prompts, list(self.digests), models, journals, sinks)
