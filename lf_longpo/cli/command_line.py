"""The `longpo` command: parses, calls, prints. Nothing heavy is imported before it is needed."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from lf_longpo import __version__
from lf_longpo.cli import init_command, recipes_command
from lf_longpo.errors import INTERRUPTED, UserError

_CONFIG_HELP = "YAML file; see yaml/ for examples"
_ESTIMATE_HELP = "only tell what calls, tokens and cost are to be expected"
_OVERRIDES_HELP = "settings on top of the file, with dots going down: longmab.rounds=8"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives the exit code: 0 done, 1 too little came out, 2 bad input, 130 interrupted."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:  # key=value behind a flag, which argparse takes for strangers
        if not hasattr(options, "overrides") or any(word.startswith("-") for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.overrides += rest
    # Tokenizers fork warnings and library progress bars would drown what this command says itself.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # file names and terminals need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        exit_code = options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder without permission
        print(f"error: {error}; when that is mended, the same command carries on", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    if exit_code == INTERRUPTED:
        print("interrupted; the same command carries on where this one stopped", file=sys.stderr)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="longpo", description="Long-context preference optimisation for LLaMA-Factory."
    )
    parser.add_argument("--version", action="version", version=f"longpo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init_command.add(commands)

    generate = commands.add_parser(
        "generate",
        help="questions to preference pairs to a registered data set",
        description="Makes preference pairs from long-context questions and registers them for LLaMA-Factory. "
        "Started again, the same command carries on; finished calls are not repeated.",
    )
    generate.add_argument("config", help=_CONFIG_HELP)
    generate.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES_HELP)
    generate.add_argument(
        "--stage",
        default="pairs",
        metavar="STAGE",
        help="stop after this stage: probe, rollout, pairs; or sample, extract, score, pairs (default: pairs)",
    )
    generate.add_argument("--estimate", action="store_true", help=_ESTIMATE_HELP)
    generate.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on this Ray cluster (auto: the one of this machine; local: one made for the run); output_dir must be "
        "on a file system that its nodes share",
    )
    generate.set_defaults(run=_generate)

    score = commands.add_parser(
        "score",
        help="score responses that exist already (LongReward)",
        description="Scores responses on helpfulness, logicality, faithfulness and completeness, 0 to 10 each. "
        "Started again, the same command carries on; finished calls are not repeated.",
    )
    score.add_argument("responses", metavar="FILE", help="lines with idx (<context's idx>-<number>), query, answer")
    score.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="contexts=FILE (lines with idx, query, context; or each response has its context), judge.model=..., "
        "output_dir=... (runs/score_<FILE>)",
    )
    score.add_argument(
        "--config", help="YAML file with judge, embedder, tokenizer, longreward; default: embedded models"
    )
    score.set_defaults(run=_score)

    evaluate = commands.add_parser("evaluate", help="score a model", description="Scores a model.")
    benchmarks = evaluate.add_subparsers(required=True, metavar="BENCHMARK")
    for name, help, description in (
        (
            "longqa",
            "EM, F1 and SubEM on long-context questions",
            "Answers each question over its whole context and scores the answers (EM, F1, SubEM), by set.",
        ),
        (
            "longbench",
            "LongReward's twelve LongBench sets, rated by a judge and by LongBench's own metrics",
            "Answers the questions of LongBench's QA and summarisation sets. A judge rates answers against references "
            "(judge=null goes without); F1 and ROUGE-L stand beside it.",
        ),
        (
            "longbench-chat",
            "LongBench-Chat: open questions, rated 1 to 10 by a judge",
            "Answers open questions over long documents; a judge that is shown rated answers rates them from 1 to 10.",
        ),
        (
            "winrate",
            "two models' answers side by side",
            "Has a judge tell which of two models answers better, in both orders.",
        ),
    ):
        benchmark = benchmarks.add_parser(name, help=help, description=description)
        benchmark.add_argument("config", help=_CONFIG_HELP)
        benchmark.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES_HELP)
        benchmark.add_argument("--estimate", action="store_true", help=_ESTIMATE_HELP)
        benchmark.set_defaults(run=partial(_evaluate, name))
    compare = benchmarks.add_parser(
        "compare",
        help="what became better or worse between two evaluations",
        description="Compares two evaluations question by question: the mean of the differences and its 95%% interval.",
    )
    compare.add_argument("first", type=Path, help="output_dir of an evaluation, such as the untrained model's")
    compare.add_argument("second", type=Path, help="output_dir of the other, over the same questions")
    compare.set_defaults(run=_compare)

    report = commands.add_parser(
        "report",
        help="a page about a generation: rewards, arms, pairs, failures, cost",
        description="Writes report.html into the run's folder: one file that opens from disk. `longpo generate` does "
        "so when it ends; this does it while a run goes on, too.",
    )
    report.add_argument("run_dir", type=Path, help="output_dir of a generation")
    report.set_defaults(run=_report)

    view = commands.add_parser(
        "view",
        help="look at pairs, their contexts and evidence on a local page, and decide about them",
        description="Opens a page on this machine to search, filter and sort pairs, see what each response rests on, "
        "and accept, reject or edit them. Decisions go to a file beside the data set; longpo register --reviewed uses "
        "them.",
    )
    view.add_argument("name", help="output_dir of a generation, a .jsonl file of pairs, or a registered data set")
    view.add_argument("--dataset-dir", type=Path, default=Path("dataset_info"), help="data folder (%(default)s)")
    view.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    view.add_argument("--port", type=int, default=7870, help="likewise; 0 for any free one (%(default)s)")
    view.set_defaults(run=_view)

    export = commands.add_parser(
        "export",
        help="pairs, or all responses of a run, for other trainers and for the hub",
        description="Writes a data set in another form: pairs as they are, TRL's preference or unpaired form, or "
        "LLaMA-Factory's sharegpt pairs or KTO. The file's name ends in .jsonl or .parquet.",
    )
    export.add_argument("name", help="output_dir of a generation, a .jsonl file of pairs, or a registered data set")
    export.add_argument("output", type=Path, help="the .jsonl or .parquet file to write")
    export.add_argument(
        "--to", choices=["pairs", "trl-dpo", "sharegpt", "trl-kto", "kto"], default="pairs", help="form (%(default)s)"
    )
    export.add_argument(
        "--threshold",
        type=float,
        help="kto, trl-kto: reward from which a response is desirable (the middle between its question's extremes)",
    )
    export.add_argument("--reviewed", action="store_true", help="as decided about in longpo view")
    export.add_argument("--dataset-dir", type=Path, default=Path("dataset_info"), help="data folder (%(default)s)")
    export.add_argument("--register", metavar="NAME", help="kto: register the file with LLaMA-Factory")
    export.add_argument("--push-to-hub", metavar="ORG/NAME", help="upload the file with a data card (token: HF_TOKEN)")
    export.add_argument("--private", action="store_true", help="make the hub repository a private one")
    export.set_defaults(run=_export)

    synthesize = commands.add_parser(
        "synthesize",
        help="make long-context questions",
        description="Makes questions that `longpo generate` reads, with a data card beside them.",
    )
    ways = synthesize.add_subparsers(required=True, metavar="WAY")
    for name, help, description in (
        (
            "multihop",
            "from MuSiQue, HotpotQA or 2WikiMultiHopQA, and articles to fill the contexts with",
            "Puts the documents that support a published multi-hop question among many that do not, shuffled and "
            "numbered, until the context has the wanted length.",
        ),
        (
            "needle",
            "facts at chosen depths of documents of any length, made without a model",
            "Hides facts in seeded documents, for tests and benchmarks: one hop or more, at chosen depths.",
        ),
        (
            "self-instruct",
            "questions about your documents and their answers, both written by a model",
            "Has a model write questions of several kinds about documents (.txt, .md, .html, .pdf, tables) and answer "
            "them, leaves out what cannot be answered or was asked already, and registers an SFT data set.",
        ),
        (
            "mix",
            "join, filter and split files of questions",
            "Joins files of questions, leaves out what is too long, in another language or over a context that was "
            "there, and holds some out that share no document with the others.",
        ),
    ):
        way = ways.add_parser(name, help=help, description=description)
        way.add_argument("config", help=_CONFIG_HELP)
        way.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES_HELP)
        if name == "self-instruct":
            way.add_argument("--estimate", action="store_true", help=_ESTIMATE_HELP)
        way.set_defaults(run=_self_instruct if name == "self-instruct" else partial(_synthesize, name))

    check = commands.add_parser(
        "check",
        help="what would go wrong in a training run, before it starts",
        description="Checks a training recipe with LLaMA-Factory's own parser, loader and templates: settings, data, "
        "lengths, DeepSpeed, memory. Exits with 2 where it finds an error.",
    )
    check.add_argument("recipe", help="LLaMA-Factory recipe, as for llamafactory-cli train")
    check.add_argument("overrides", nargs="*", metavar="key=value", help="settings on top of the file")
    check.add_argument("--json", action="store_true", help="print the report as one JSON object")
    check.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs in all (this machine's, or 8)")
    check.add_argument(
        "--gpu-memory", type=float, default=0, metavar="GIB", help="memory of one GPU (this machine's, or 80)"
    )
    check.add_argument(
        "--fix-lengths",
        action="store_true",
        help="also write and register a copy of each data set with too long contexts cut in their middle",
    )
    check.set_defaults(run=_check)

    train = commands.add_parser(
        "train",
        help="train a LLaMA-Factory recipe in a fraction of the memory and time",
        description="Trains any LLaMA-Factory DPO or SFT recipe with the same loss; what it cannot speed up trains as "
        "plain LLaMA-Factory. Launches like llamafactory-cli train (NPROC_PER_NODE, NNODES, ...).",
    )
    train.add_argument("recipe", help="LLaMA-Factory recipe, as for llamafactory-cli train")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="settings on top of the file")
    train.add_argument("--stock", action="store_true", help="plain LLaMA-Factory")
    train.add_argument(
        "--verbose",
        action="store_true",
        help="show LLaMA-Factory's log on the screen, too (it is in OUTPUT_DIR/train.log)",
    )
    train.set_defaults(run=_train)

    register = commands.add_parser(
        "register",
        help="add a data set to dataset_info.json",
        description="Adds a file, a folder of files or a hub data set to LLaMA-Factory's dataset_info.json. The format "
        "of a local file is read from its first rows where it is not given.",
    )
    register.add_argument(
        "source",
        help="a .jsonl, .json, .parquet, .csv, .arrow or .txt file, a folder of such files of one type, an s3:// or "
        "gs:// address, or the name of a hub data set",
    )
    register.add_argument("--name", required=True, help="what a recipe's `dataset` will say")
    register.add_argument("--dataset-dir", default="dataset_info", help="LLaMA-Factory's data folder (%(default)s)")
    register.add_argument("--format", choices=["alpaca", "sharegpt"], help="one prompt and response, or messages")
    register.add_argument("--ranking", action=argparse.BooleanOptionalAction, help="rows hold chosen and rejected")
    register.add_argument("--columns", nargs="+", metavar="OURS=THEIRS", help="e.g. prompt=question response=answer")
    register.add_argument("--tags", nargs="+", metavar="OURS=THEIRS", help="for sharegpt, e.g. role_tag=role")
    register.add_argument("--subset", help="configuration of a hub data set")
    register.add_argument("--split", help="split of a hub data set")
    register.add_argument(
        "--reviewed",
        action="store_true",
        help="make NAME.jsonl of a run, file or registered data set of pairs as they were decided about in longpo view",
    )
    register.add_argument(
        "--overwrite", action="store_true", help="replace an entry of another shape, or a reviewed file"
    )
    register.set_defaults(run=_register)
    recipes_command.add(commands)
    return parser


def _generate(options: argparse.Namespace) -> int:
    import asyncio

    from lf_longpo.cli.config_kinds import refuse_other_kinds
    from lf_longpo.config import GenerateConfig
    from lf_longpo.config.loading import load_config

    refuse_other_kinds("longpo generate", options.config)
    config = load_config(GenerateConfig, options.config, options.overrides)
    from lf_longpo.cli.reporting import method_title, print_estimate, print_generation
    from lf_longpo.generation.generate import estimate, generate

    if options.estimate:
        print_estimate(method_title(config), estimate(config))
        return 0
    if options.ray:
        from lf_longpo.generation.distributed import generate_on_ray

        result = generate_on_ray(config, options.ray, options.stage)
    else:
        result = asyncio.run(generate(config, options.stage))
    print_generation(config, result.summary)
    return result.exit_code


def _score(options: argparse.Namespace) -> int:
    import asyncio
    import json

    from lf_longpo.cli.config_kinds import refuse_other_kinds
    from lf_longpo.config import ScoreConfig
    from lf_longpo.config.loading import load_config

    refuse_other_kinds("longpo score", options.config)
    # JSON is YAML; it keeps a name with special characters one text.
    config = load_config(
        ScoreConfig,
        options.config,
        [f"responses={json.dumps(options.responses, ensure_ascii=False)}", *options.overrides],
    )
    from lf_longpo.cli.reporting import print_scores
    from lf_longpo.longreward.score_file import score_file

    summary, exit_code = asyncio.run(score_file(config))
    print_scores(summary, config)
    return exit_code


def _evaluate(name: str, options: argparse.Namespace) -> int:
    import asyncio

    import lf_longpo.config as configs
    from lf_longpo.cli.config_kinds import refuse_other_kinds
    from lf_longpo.config.loading import load_config

    refuse_other_kinds(f"longpo evaluate {name}", options.config)
    kinds = {
        "longqa": configs.LongQAConfig,
        "longbench": configs.LongBenchConfig,
        "longbench-chat": configs.LongBenchChatConfig,
        "winrate": configs.WinRateConfig,
    }
    config = load_config(kinds[name], options.config, options.overrides)
    from lf_longpo.cli.reporting import print_estimate, print_evaluation
    from lf_longpo.evaluation.benchmarks import make_benchmark
    from lf_longpo.evaluation.evaluate import estimate, evaluate
    from lf_longpo.evaluation.results import load_results

    benchmark = make_benchmark(config)
    if options.estimate:
        print_estimate(name, estimate(config, benchmark))
        return 0
    before = [load_results(config.baseline, "baseline", name)] if config.baseline else []
    results, exit_code = asyncio.run(evaluate(config, benchmark))
    print_evaluation([*before, results], config)
    return exit_code


def _compare(options: argparse.Namespace) -> int:
    from lf_longpo.cli.reporting import print_comparison
    from lf_longpo.evaluation.compare import compare

    print_comparison(compare(options.first, options.second))
    return 0


def _report(options: argparse.Namespace) -> int:
    from lf_longpo.report.page import write_report

    print(write_report(options.run_dir))
    return 0


def _export(options: argparse.Namespace) -> int:
    from lf_longpo.export.export import export, push, register_kto

    if options.register and options.to != "kto":
        raise UserError("--register goes with --to kto; longpo register takes files of pairs")
    if options.private and not options.push_to_hub:
        raise UserError("--private goes with --push-to-hub")
    number, viewed = export(
        options.name, options.to, options.output, options.dataset_dir, options.threshold, options.reviewed
    )
    print(f"{number:,} rows -> {options.output}")
    if options.register:
        register_kto(options.dataset_dir, options.register, options.output)
        print(f"registered {options.register} in {options.dataset_dir}/dataset_info.json")
    if options.push_to_hub:
        print(push(options.push_to_hub, options.output, number, options.to, viewed, options.private))
    return 0


def _view(options: argparse.Namespace) -> int:
    from lf_longpo.viewer.serve import view

    view(options.name, options.dataset_dir, options.host, options.port)
    return 0


def _self_instruct(options: argparse.Namespace) -> int:
    from lf_longpo.cli.config_kinds import refuse_other_kinds
    from lf_longpo.config import SelfInstructConfig
    from lf_longpo.config.loading import load_config

    refuse_other_kinds("longpo synthesize self-instruct", options.config)
    config = load_config(SelfInstructConfig, options.config, options.overrides)
    from lf_longpo.cli.reporting import print_estimate, print_self_instruct
    from lf_longpo.synthesis.self_instruct_run import estimate, self_instruct

    if options.estimate:
        print_estimate(f"self-instruct: {config.dataset_name}", estimate(config))
        return 0
    summary, exit_code = self_instruct(config)
    print_self_instruct(summary, config)
    return exit_code


def _synthesize(name: str, options: argparse.Namespace) -> int:
    import lf_longpo.config as settings
    from lf_longpo.cli.config_kinds import refuse_other_kinds
    from lf_longpo.config.loading import load_config

    refuse_other_kinds(f"longpo synthesize {name}", options.config)
    kinds = {"multihop": settings.MultiHopConfig, "needle": settings.NeedleConfig, "mix": settings.MixConfig}
    config = load_config(kinds[name], options.config, options.overrides)
    from lf_longpo.cli.reporting import print_dropped, print_questions
    from lf_longpo.synthesis import build

    if name == "mix":
        choice, cards = build.mix(config)
        print_dropped(choice)
    else:
        cards = {"multihop": build.make_multihop, "needle": build.make_needles}[name](config)
    print_questions((config.output, getattr(config, "held_out", None)), cards)
    return 0


def _check(options: argparse.Namespace) -> int:
    from contextlib import redirect_stdout

    from lf_longpo.cli.config_kinds import refuse_other_kinds

    refuse_other_kinds("longpo check", options.recipe)
    with redirect_stdout(sys.stderr):  # libraries greet on stdout, which belongs to the report
        from lf_longpo.cli.reporting import stdout_console
        from lf_longpo.plugin.check.fix_lengths import fix_lengths
        from lf_longpo.plugin.check.printing import as_json, print_copies, print_report
        from lf_longpo.plugin.check.recipe_check import check

        checked = check(options.recipe, options.overrides, options.gpus, options.gpu_memory)
        copies = fix_lengths(checked) if options.fix_lengths else []
    if options.json:
        print(as_json(options.recipe, checked.findings, copies))
    else:
        print_report(stdout_console(), options.recipe, checked.findings)
        print_copies(stdout_console(), copies)
    return 2 if checked.findings.errors else 0


def _train(options: argparse.Namespace) -> int:
    from lf_longpo.cli.config_kinds import refuse_other_kinds

    refuse_other_kinds("longpo train", options.recipe)
    from lf_longpo.plugin.train.launch import train

    return train(options.recipe, options.overrides, options.stock, options.verbose)


def _register(options: argparse.Namespace) -> int:
    if options.reviewed:
        return _register_reviewed(options)
    from lf_longpo.files.tables import check_halves
    from lf_longpo.plugin.dataset_files import files_of, first_rows
    from lf_longpo.plugin.entries import describe_dataset, is_local, remarks
    from lf_longpo.plugin.registry import register_dataset

    entry = describe_dataset(
        options.source,
        options.dataset_dir,
        formatting=options.format,
        ranking=options.ranking,
        columns=_mapping(options.columns),
        tags=_mapping(options.tags),
        subset=options.subset,
        split=options.split,
    )
    if "file_name" in entry:
        for file in files_of(Path(options.source)):
            check_halves(str(file))
    register_dataset(options.dataset_dir, options.name, entry, overwrite=options.overwrite)
    print(f"registered {options.name} in {options.dataset_dir}/dataset_info.json: {entry}")
    if is_local(options.source):
        for remark in remarks(first_rows(Path(options.source)), entry):
            print(remark)
    return 0


def _register_reviewed(options: argparse.Namespace) -> int:
    from lf_longpo.cli.reporting import print_reviewed
    from lf_longpo.export.export import register_reviewed

    described = ("format", "ranking", "columns", "tags", "subset", "split")
    if given := [f"--{name}" for name in described if getattr(options, name) is not None]:
        raise UserError(
            f"{given[0]} does not go with --reviewed: the data set keeps the shape that it was registered in"
        )
    print_reviewed(*register_reviewed(options.source, Path(options.dataset_dir), options.name, options.overwrite))
    return 0


def _mapping(pairs: Sequence[str] | None) -> dict[str, str]:
    mapping = {}
    for pair in pairs or ():
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise UserError(f"{pair!r} must have the form OURS=THEIRS, as in prompt=question")
        mapping[ours] = theirs
    return mapping


if __name__ == "__main__":
    sys.exit(main())
