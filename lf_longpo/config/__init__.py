"""Typed settings of all commands, one file for each thing they configure, and how they are read.

`loading` reads a YAML file and `key=value` overrides. Nothing here opens a model, a data set or a network connection:
valid settings may name a file or a server that does not exist.
"""

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.document_chat import DocumentChatConfig
from lf_longpo.config.evaluation import (
    GPT_4O,
    EvaluateConfig,
    EvaluateJudgeConfig,
    EvaluationConfig,
    LongBenchChatConfig,
    LongBenchConfig,
    LongQAConfig,
    WinRateConfig,
)
from lf_longpo.config.generation import (
    GenerateConfig,
    LongMabConfig,
    LongMabGenerateConfig,
    LongRewardConfig,
    LongRewardGenerateConfig,
    PairsConfig,
)
from lf_longpo.config.judging import JudgingConfig, VerdictConfig
from lf_longpo.config.models import (
    ChatConfig,
    EmbedderConfig,
    JudgeModelConfig,
    PriceConfig,
    ServedConfig,
    check_budget,
    check_engines,
)
from lf_longpo.config.sampling import GreedySampling, ResponseSampling, SamplingConfig
from lf_longpo.config.scoring import ScoreConfig
from lf_longpo.config.synthesis import Kind, LengthConfig, MixConfig, MultiHopConfig, NeedleConfig, SelfInstructConfig

__all__ = [
    "GPT_4O",
    "ChatConfig",
    "Config",
    "DocumentChatConfig",
    "EmbedderConfig",
    "EvaluateConfig",
    "EvaluateJudgeConfig",
    "EvaluationConfig",
    "GenerateConfig",
    "GreedySampling",
    "JudgeModelConfig",
    "JudgingConfig",
    "Kind",
    "LengthConfig",
    "LongBenchChatConfig",
    "LongBenchConfig",
    "LongMabConfig",
    "LongMabGenerateConfig",
    "LongQAConfig",
    "LongRewardConfig",
    "LongRewardGenerateConfig",
    "MixConfig",
    "MultiHopConfig",
    "NeedleConfig",
    "PairsConfig",
    "Positive",
    "PriceConfig",
    "ResponseSampling",
    "SamplingConfig",
    "ScoreConfig",
    "SelfInstructConfig",
    "ServedConfig",
    "VerdictConfig",
    "WinRateConfig",
    "check_budget",
    "check_engines",
]
