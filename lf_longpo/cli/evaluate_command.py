"""`longpo evaluate`: benchmarks of a model or a judge, and the comparison of two evaluations."""

import argparse

from lf_longpo.cli import compare_command, judge_command
from lf_longpo.cli.arguments import Parser, Subparsers, add_command, add_estimate, add_run, add_settings, print_loading

_BENCHMARKS = {
    "longqa": (
        "long-context questions: EM, F1, SubEM",
        "Answers each question with its whole context and scores the answers for each set (EM, F1, SubEM).",
    ),
    "longbench": (
        "LongReward's twelve LongBench sets, rated by a judge",
        "Answers the QA and summarisation questions of LongBench. A judge rates the answers against the references "
        "(judge=null: no judge); F1 and ROUGE-L are reported as well.",
    ),
    "longbench-chat": (
        "LongBench-Chat: open questions, rated 1 to 10 by a judge",
        "Answers open questions about long documents. A judge that sees rated example answers rates each answer from "
        "1 to 10.",
    ),
    "winrate": (
        "answers of two models, compared by a judge",
        "A judge decides which of two models gives the better answer. It sees each pair of answers in both orders.",
    ),
}


def add(subparsers: Subparsers) -> None:
    parser: Parser = subparsers.add_parser("evaluate", help="evaluate a model", description="Evaluates a model.")
    benchmarks = parser.add_subparsers(required=True, metavar="COMMAND", dest="benchmark")
    for name, (help, description) in _BENCHMARKS.items():
        benchmark = add_command(benchmarks, name, run, help, description)
        add_run(benchmark)
        add_settings(benchmark)
        add_estimate(benchmark)
    judge_command.add(benchmarks)
    compare_command.add(benchmarks)


def run(options: argparse.Namespace) -> int:
    import asyncio

    import lf_longpo.config as configs
    from lf_longpo.cli.settings_files import load_settings

    kinds: dict[str, type[configs.EvaluateConfig]] = {
        "longqa": configs.LongQAConfig,
        "longbench": configs.LongBenchConfig,
        "longbench-chat": configs.LongBenchChatConfig,
        "winrate": configs.WinRateConfig,
    }
    config = load_settings(kinds[options.benchmark], options.config, options.overrides)
    print_loading()
    from lf_longpo.cli.evaluation_output import print_evaluation
    from lf_longpo.cli.run_output import print_estimate, speed_for
    from lf_longpo.evaluation.benchmarks import make_benchmark
    from lf_longpo.evaluation.evaluate import estimate, evaluate
    from lf_longpo.evaluation.results import load_results

    benchmark = make_benchmark(config)
    if options.estimate:
        print_estimate(options.benchmark, estimate(config, benchmark), speed_for(options, config))
        return 0
    before = [load_results(config.baseline, "baseline", options.benchmark)] if config.baseline else []
    results, exit_code = asyncio.run(evaluate(config, benchmark))
    print_evaluation([*before, results], config, options.command)
    return exit_code
