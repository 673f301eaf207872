"""What a run's calls have taken, stage by stage, and whether the next one may still be made.

A call's cost is known only when it has come back. So before it starts, the most it can cost is set aside, and it waits
where that is more than the budget leaves until other calls, which mostly cost less than was set aside, have ended.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from lf_longpo.config import PriceConfig
from lf_longpo.errors import BudgetSpent, Interrupted
from lf_longpo.models.cache import StageTotals

_MILLION = 1_000_000


def cost_of(price: PriceConfig | None, prompt_tokens: int, completion_tokens: int) -> float:
    """What so many tokens cost; 0 without a price."""
    if price is None:
        return 0.0
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / _MILLION


class Ledger:
    """Totals by stage, and the budget.

    Args:
        max_cost: the budget over every start of the run, in the prices' currency; None for no bound.
    """

    def __init__(self, max_cost: float | None = None) -> None:
        self.batches: dict[str, str] = {}
        """Batches under way at a provider, and how far they are."""
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
        """Whether no further call is to be made, though the budget allows it."""
        return self._interruption.is_set()

    def interrupt(self) -> None:
        """From now on no call is made."""
        self._interruption.set()

    async def pause(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            Interrupted: no further call is to be made; at once.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._interruption.wait(), seconds)
        self._go_on()

    def _go_on(self) -> None:
        if self.interrupted:
            raise Interrupted("the run was asked to end")

    @property
    def stages(self) -> Mapping[str, StageTotals]:
        """Totals by stage."""
        return self._stages

    @property
    def spent(self) -> float:
        """The cost of all finished calls."""
        return self._spent

    def carry_over(self, stages: Mapping[str, StageTotals]) -> None:
        """Begins with what earlier starts of the run took."""
        self._stages = dict(stages)
        self._spent = sum(totals.cost for totals in stages.values())

    def add(self, stage: str, call: StageTotals) -> None:
        """One more call has come back."""
        self._stages[stage] = self._stages.get(stage, StageTotals()).plus(call)
        self._spent += call.cost

    @asynccontextmanager
    async def set_aside(self, most: float) -> AsyncIterator[None]:
        """Keeps `most` back while one call is made.

        Raises:
            BudgetSpent: the call could exceed the budget even when no other is under way, or an earlier one could.
            Interrupted: no further call is to be made.
        """
        self._go_on()
        if self._max_cost is None:
            yield
            return
        async with self._ended:
            while not self._stopped and self._spent + self._set_aside + most > self._max_cost:
                if self._under_way:
                    await self._ended.wait()
                else:
                    self._stopped = True
                self._go_on()
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
