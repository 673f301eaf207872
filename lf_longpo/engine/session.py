"""A run's session: everything that a run opens before its work and closes after it."""

import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import (
    ChatConfig,
    EmbedderConfig,
    EvaluationConfig,
    GenerateConfig,
    ScoreConfig,
    SelfInstructConfig,
)
from lf_longpo.engine.failures import FAILURES, Failures
from lf_longpo.engine.pipeline import Pipeline, Q, Tally
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.progress_file import saved
from lf_longpo.files.journal import check_folder, write_whole
from lf_longpo.files.run_dir import SUMMARY, changed_settings, locked, refuse_changes, save_settings
from lf_longpo.files.starts import recorded_start
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.chat import ChatModel
from lf_longpo.models.embedders import Embedder, check_embedder, make_embedder
from lf_longpo.models.factory import make_chat
from lf_longpo.models.folders import check_chat_folders
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.turns import QuestionOrder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RunConfig = GenerateConfig | ScoreConfig | EvaluationConfig | SelfInstructConfig
"""The configuration of a command that calls models for many questions."""


class Session:
    """Holds the lock, the call cache, the ledger, the failures and the models of one run.

        async with Session(config) as session:
            session.check_settings()
            await session.check_models(config.judge)  # finds what is wrong within seconds
            judge = session.chat(config.judge, tokenizer)
            await session.start(config.judge)  # loads the model
            session.open()  # nothing is written before this
            ...
            tally = await session.run(questions, number, work, in_flight, progress)
            session.write_summary({..., **tally.counts(), **session.totals()})

    When the block ends, the models close first, so that calls that still come back are kept; then the failures and
    the call cache close, and the lock is released.

    Args:
        config: the run's.
        patience: seconds to wait for another run in the same folder to end.
        summary: the file in the run's folder that says how the run ended.
    """

    def __init__(self, config: RunConfig, patience: float = 0.0, summary: str = SUMMARY) -> None:
        self.ledger = Ledger(config.max_cost)
        """The calls, tokens and cost so far."""
        self.failures = Failures(config.output_dir / FAILURES)
        """What failed."""
        self._config = config
        self._patience = patience
        self._summary = config.output_dir / summary
        self._cache = CallCache(config.output_dir / CALLS)
        self._order = QuestionOrder()
        # Models by their settings as JSON.
        self._backends: dict[str, ChatModel] = {}
        self._chats: dict[str, Calls] = {}
        self._embedders: dict[str, Embedder] = {}
        self._opened = ExitStack()
        self._began = time.monotonic()

    def check_settings(self, redone: Collection[str] = ()) -> bool:
        """Checks the folder, and the settings against those that the folder's run began with.

        Args:
            redone: settings, and sections (ending with a dot), that may have changed, because what they determine is
                made again.

        Returns:
            Whether one of these has changed.

        Raises:
            UserError: another setting has changed, or the folder cannot be written.
        """
        folder = self._config.output_dir
        changed = changed_settings(self._config, folder)
        sections = tuple(name for name in redone if name.endswith("."))
        refused = {name for name in changed if name not in redone and not name.startswith(sections)}
        refuse_changes({name: values for name, values in changed.items() if name in refused}, folder)
        check_folder(folder, "output_dir")
        return bool(changed)

    def chat(self, config: ChatConfig, tokenizer: "PreTrainedTokenizerBase") -> Calls:
        """A chat model, not started. The same configuration gives the same model, which is loaded once.

        Raises:
            UserError: its settings cannot work.
        """
        key = config.model_dump_json()
        if key not in self._chats:
            model, seed, section = self._backend(config), self._config.seed, self._section(config)
            self._chats[key] = Calls(model, config, tokenizer, self._cache, self.ledger, seed, self._order, section)
        return self._chats[key]

    def embedder(self, config: EmbedderConfig) -> Embedder:
        """An embedder, not started. The same configuration gives the same embedder.

        Raises:
            UserError: its settings cannot work.
        """
        key = config.model_dump_json()
        if key not in self._embedders:
            self._embedders[key] = make_embedder(config, self._cache, self.ledger)
        return self._embedders[key]

    async def check_models(self, *models: ChatConfig | EmbedderConfig) -> None:
        """Checks models within seconds, without heavy imports: servers must answer, and folders must hold models.

        Raises:
            UserError: one of them cannot be used.
        """
        for config in models:
            if isinstance(config, EmbedderConfig):
                if config.backend == "openai":
                    await self.embedder(config).start()
                else:
                    check_embedder(config)
            elif config.backend == "openai":
                await self._backend(config).start()
            else:
                check_chat_folders(config, f"{self._section(config)}.")

    async def start(self, *models: ChatConfig | EmbedderConfig) -> None:
        """Starts models that `chat` and `embedder` have made, one after the other.

        Libraries that load weights are not safe for several threads.

        Raises:
            UserError: one of them cannot be used.
        """
        for config in models:
            made: dict[str, Calls] | dict[str, Embedder]
            made = self._embedders if isinstance(config, EmbedderConfig) else self._chats
            await made[config.model_dump_json()].start()

    def open(self) -> None:
        """Locks the folder, opens the call cache, removes an old summary and old failures, and saves the settings.

        From then on, the start is recorded.

        Raises:
            UserError: another run works in the folder, or its call cache cannot be used.
        """
        folder = self._config.output_dir
        self._opened.enter_context(locked(folder, self._patience))
        self._opened.callback(self._cache.close)
        self._cache.open()
        self.ledger.carry_over(self._cache.totals())
        self._opened.callback(self.failures.close)
        self.failures.clear()
        self._summary.unlink(missing_ok=True)  # a summary means that the run has ended
        save_settings(self._config, folder)
        self._end_start = self._opened.enter_context(recorded_start(folder))

    async def run(
        self,
        questions: Iterable[Q],
        number: int,
        work: Callable[[Q], Awaitable[None]],
        in_flight: int,
        progress: Progress,
        finished: Callable[[], Collection[str]] = tuple,
    ) -> Tally:
        """Runs the work of all questions, shows its progress and keeps it in progress.json; see `Pipeline`."""
        progress.show_failures(self.failures)
        pipeline = Pipeline(number, work, in_flight, self.failures, progress, self.ledger, self._order, finished)
        with progress, saved(progress, self._config.output_dir):
            return await pipeline.run(questions)

    def totals(self) -> dict[str, Any]:
        """The calls by stage, their cost, and the seconds since the session began, for a summary."""
        return {
            "calls": {stage: totals._asdict() for stage, totals in self.ledger.stages.items()},
            "cost": self.ledger.spent,
            "seconds": round(time.monotonic() - self._began, 1),
        }

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the summary; from then on the run has ended."""
        self._end_start()
        write_whole(self._summary, [json.dumps(summary, indent=2, ensure_ascii=False), "\n"])

    def _backend(self, config: ChatConfig) -> ChatModel:
        key = config.model_dump_json()
        if key not in self._backends:
            self._backends[key] = make_chat(config, self._cache, self.ledger)
        return self._backends[key]

    def _section(self, config: ChatConfig) -> str:
        """The section of the run's settings that configures a model; the first where several do."""
        settings = self._config
        return next((name for name in type(settings).model_fields if getattr(settings, name) == config), "model")

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            models = [*(self._backends | self._chats).values(), *self._embedders.values()]
            await all_settled(*(model.close() for model in models))
        finally:
            self._opened.close()
