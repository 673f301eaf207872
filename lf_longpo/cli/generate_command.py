"""`longpo generate`: questions to preference pairs to a registered data set."""

import argparse

from lf_longpo.cli.arguments import Subparsers, add_command, add_estimate, add_run, add_settings, print_loading


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "generate",
        run,
        help="make preference pairs from long-context questions",
        description="Makes preference pairs from long-context questions and registers them as a LLaMA-Factory data "
        "set. Run the same command again to resume; finished calls are not repeated.",
    )
    add_run(parser)
    add_settings(parser)
    parser.add_argument(
        "--stage",
        default="pairs",
        metavar="STAGE",
        help="last stage to run: probe, rollout, pairs (longmab); sample, extract, score, pairs (longreward); "
        "default: %(default)s",
    )
    add_estimate(parser)
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on this Ray cluster (auto: the cluster of this machine; local: a new one); all nodes must share the "
        "file system of output_dir",
    )


def run(options: argparse.Namespace) -> int:
    import asyncio

    from lf_longpo.cli.settings_files import load_settings
    from lf_longpo.config import GenerateConfig

    config = load_settings(GenerateConfig, options.config, options.overrides)
    print_loading()
    from lf_longpo.cli.generation_output import method_title, print_generation
    from lf_longpo.cli.run_output import print_estimate, speed_for
    from lf_longpo.generation.generate import estimate, generate

    if options.estimate:
        print_estimate(method_title(config), estimate(config), speed_for(options, config))
        return 0
    if options.ray:
        from lf_longpo.generation.distributed import generate_on_ray

        result = generate_on_ray(config, options.ray, options.stage)
    else:
        result = asyncio.run(generate(config, options.stage))
    print_generation(config, result.summary, options.command)
    return result.exit_code
