"""`longpo evaluate judge`: a judge measured on labelled preferences."""

import argparse

from lf_longpo.cli.arguments import Subparsers, add_command, add_estimate, add_run, add_settings, print_loading


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "judge",
        run,
        help="a judge, measured on labelled preferences",
        description="Compares a judge's decisions with labelled preferences: agreement, ties, preference for the "
        "longer and for the first response, stability, and what a decision takes.",
    )
    add_run(parser)
    add_settings(parser)
    add_estimate(parser)


def run(options: argparse.Namespace) -> int:
    import asyncio

    from lf_longpo.cli.settings_files import load_settings
    from lf_longpo.config import EvaluateJudgeConfig

    config = load_settings(EvaluateJudgeConfig, options.config, options.overrides)
    print_loading()
    from lf_longpo.cli.judge_output import print_judge
    from lf_longpo.cli.run_output import print_estimate, speed_for
    from lf_longpo.evaluation.judge_decisions import make_decider
    from lf_longpo.evaluation.judge_evaluation import JUDGE, estimate_judge, evaluate_judge
    from lf_longpo.evaluation.results import load_results
    from lf_longpo.longreward.pair_rating import LongRewardRater

    decider = make_decider(config, LongRewardRater(config) if config.embeds else None)
    if options.estimate:
        print_estimate(JUDGE, estimate_judge(config, decider), speed_for(options, config))
        return 0
    before = [load_results(config.baseline, "baseline", JUDGE)] if config.baseline else []
    results, exit_code = asyncio.run(evaluate_judge(config, decider))
    print_judge([*before, results], config, options.command)
    return exit_code
