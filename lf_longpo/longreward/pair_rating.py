"""LongReward's judge as a `Rater`, which `longpo evaluate judge` measures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lf_longpo.config import EvaluateJudgeConfig
from lf_longpo.data.records import Question
from lf_longpo.judging.ratings import Rate, Rating
from lf_longpo.longreward.estimate import judging_usage, prompt_sizes, response_lengths
from lf_longpo.longreward.judge_prompts import prompts_for
from lf_longpo.longreward.scorer import DIMENSIONS, Scorer
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import Embedder
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LongRewardRater:
    """Scores responses on the four dimensions (arXiv 2410.21252); the total is the reward, their mean.

    Raises:
        UserError: the judge's prompts cannot be used.
    """

    dimensions: Sequence[str] = DIMENSIONS

    def __init__(self, config: EvaluateJudgeConfig) -> None:
        self._config = config
        self._prompts = prompts_for(config.longreward, config.judge)

    @property
    def texts(self) -> Sequence[str]:
        """The judge's prompts."""
        return self._prompts.texts

    def rate(
        self, judge: Calls, embedder: Embedder | None, tokenizer: "PreTrainedTokenizerBase", remembered: int
    ) -> Rate:
        """See `Rater.rate`."""
        assert embedder, "the configuration says that it is needed"
        settings = self._config.longreward
        scorer = Scorer(settings, self._config.judge, self._prompts, judge, embedder, tokenizer, remembered)

        async def rate(id: str, question: Question, response: str) -> Rating:
            score = await scorer.score(id, question.context, question.question, response)
            return Rating(score.reward, {name: score.scores[name] for name in DIMENSIONS})

        return rate

    def usage(
        self, question: Question, responses: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
    ) -> dict[str, Usage]:
        """See `Rater.usage`."""
        config = self._config
        bare = prompt_sizes(self._prompts, config.judge, tokenizer)
        lengths = response_lengths(responses, tokenizer)
        stages: dict[str, Usage] = {}
        for stage, usage in judging_usage(
            config.longreward, config.judge, config.embedder, bare, tokenizer, question, lengths
        ):
            stages[stage] = stages.get(stage, Usage()) + usage
        return stages
