"""The rounds of one question, and when it needs no further one (`longmab.stop`)."""

from collections.abc import Mapping

from lf_longpo.config import LongMabGenerateConfig
from lf_longpo.data.pair_choice import ChosenRejected, choose_pairs
from lf_longpo.data.pairs import may_train
from lf_longpo.data.records import Question, Rollout, ScoredResponse
from lf_longpo.longmab.pairing import best_and_worst
from lf_longpo.text.answers import pair_reward


class Rounds:
    """The finished rounds of one question, in order.

    Which round is the last one follows from their rollouts and the settings alone, so a run that was killed ends a
    question after the same round.

    Args:
        question: the question.
        config: the run's.
    """

    def __init__(self, question: Question, config: LongMabGenerateConfig) -> None:
        self.rollouts: list[Rollout] = []
        self.responses: list[ScoredResponse] = []
        """Those that may train."""
        self._question = question
        self._settings = config.longmab
        self._pair_settings = config.pairs
        self._seed = config.seed
        self._stopped = False

    def replay(self, finished: Mapping[int, Rollout]) -> "Rounds":
        """Adds rollouts up to the first round that is missing, or to the last round that the question needs."""
        while not self.ended and (rollout := finished.get(len(self.rollouts))):
            self.add(rollout)
        return self

    @property
    def ended(self) -> bool:
        """Whether the question needs no further round: it has all rounds, or what `longmab.stop` asks for."""
        return self._stopped or len(self.rollouts) >= self._settings.rounds

    def add(self, rollout: Rollout) -> None:
        """Adds the next round."""
        self.rollouts.append(rollout)
        if not may_train(rollout.output, rollout.truncated, self._pair_settings.allow_truncated):
            return
        reward = pair_reward(rollout.output, self._question.answers, self._settings.answer_form)
        self.responses.append(ScoredResponse(rollout.output, reward, rollout.round, rollout.thought))
        stop = self._settings.stop
        if stop is not None and self._gap() >= stop:
            self._stopped = len(self.pairs()) == self._pair_settings.per_question

    def pairs(self) -> list[ChosenRejected]:
        """The pairs that these rounds give, as chosen and rejected response."""
        rewards = [response.reward for response in self.responses]
        picked = best_and_worst(self._question.id, rewards, self._seed) if rewards else None
        return choose_pairs(self.responses, *picked, self._pair_settings) if picked else []

    def _gap(self) -> float:
        rewards = [response.reward for response in self.responses]
        return max(rewards) - min(rewards) if rewards else 0.0
