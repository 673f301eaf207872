"""Makes the benchmark of a configuration."""

from collections.abc import Callable
from typing import Any

from lf_longpo.config import EvaluateConfig, LongBenchChatConfig, LongBenchConfig, LongQAConfig, WinRateConfig
from lf_longpo.evaluation.benchmark import Benchmark
from lf_longpo.evaluation.longbench import LongBench
from lf_longpo.evaluation.longbench_chat import LongBenchChat
from lf_longpo.evaluation.longqa import LongQA
from lf_longpo.evaluation.winrate import WinRate

_BENCHMARKS: dict[type[EvaluateConfig], Callable[[Any], Benchmark]] = {
    LongQAConfig: LongQA,
    LongBenchConfig: LongBench,
    LongBenchChatConfig: LongBenchChat,
    WinRateConfig: WinRate,
}


def make_benchmark(config: EvaluateConfig) -> Benchmark:
    """The benchmark of a configuration.

    Raises:
        UserError: a file that the configuration names cannot be used.
    """
    return _BENCHMARKS[type(config)](config)
