"""Calls, tokens and cost of a run by stage, and whether the budget allows the next call.

The cost of a call is known only after it. So the most that it can cost is set aside before it starts. If the budget
leaves less, the call waits until others have ended; most of them cost less than was set aside.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from lf_longpo.config import PriceConfig
from lf_longpo.errors import BudgetSpent, Interrupted
from lf_longpo.models.cache import StageTotals

_MILLION = 1_000_000


def cost_of(price: PriceConfig | None, prompt_tokens: int, completion_tokens: int) -> float:
    """Cost of a number of tokens; 0 without a price."""
    if price is None:
        return 0.0
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / _MILLION


class Ledger:
    """Totals by stage, and the budget.

    Args:
        max_cost: the budget over every start of the run, in the currency of the prices; None for no limit.
    """

    def __init__(self, max_cost: float | None = None) -> None:
        self.batches: dict[str, str] = {}
        """Batches that a provider works on, and their state in words, by uploaded file."""
        self.retries = 0
        """Calls that were made again in this start, because the try before was lost."""
        self._max_cost = max_cost
        self._stages: dict[str, StageTotals] = {}
        self._spent = 0.0
        self._set_aside = 0.0
        self._under_way = 0
        self._ended = asyncio.Condition()
        self._stopped = False
        self._interruption = asyncio.Event()

    @property
    def interrupted(self) -> bool:
        """Whether the run makes no more calls, although the budget allows them."""
        return self._interruption.is_set()

    def interrupt(self) -> None:
        """Ends the run's calls from now on."""
        self._interruption.set()

    async def pause(self, seconds: float) -> None:
        """Sleeps, and wakes at once if the run is interrupted.

        Raises:
            Interrupted: the run makes no more calls.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._interruption.wait(), seconds)
        self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if self.interrupted:
            raise Interrupted("the run was interrupted")

    @property
    def stages(self) -> Mapping[str, StageTotals]:
        """Totals by stage."""
        return self._stages

    @property
    def spent(self) -> float:
        """The cost of all finished calls."""
        return self._spent

    def carry_over(self, stages: Mapping[str, StageTotals]) -> None:
        """Takes over the totals of earlier starts of the run."""
        self._stages = dict(stages)
        self._spent = sum(totals.cost for totals in stages.values())

    def add(self, stage: str, call: StageTotals) -> None:
        """Adds a finished call."""
        self._stages[stage] = self._stages.get(stage, StageTotals()).plus(call)
        self._spent += call.cost

    @asynccontextmanager
    async def set_aside(self, most: float) -> AsyncIterator[None]:
        """Sets `most` of the budget aside while a call is made.

        Raises:
            BudgetSpent: this call, or an earlier one, could exceed the budget even with no other call under way.
            Interrupted: the run makes no more calls.
        """
        self._stop_if_interrupted()
        if self._max_cost is None:
            yield
            return
        async with self._ended:
            while not self._stopped and self._spent + self._set_aside + most > self._max_cost:
                if self._under_way:
                    await self._ended.wait()
                else:
                    self._stopped = True
                self._stop_if_interrupted()
            if self._stopped:
                self._ended.notify_all()
                raise BudgetSpent(f"the next call could exceed max_cost = {self._max_cost:g}")
            self._set_aside += most
            self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._set_aside = self._set_aside - most if self._under_way else 0.0
            async with self._ended:
                self._ended.notify_all()
