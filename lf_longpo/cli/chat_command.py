"""`longpo chat`: questions about a document, answered by a trained model."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lf_longpo.cli.arguments import Subparsers, add_command
from lf_longpo.errors import CallFailed

if TYPE_CHECKING:
    from asyncio import Runner

    from lf_longpo.evaluation.ask_document import DocumentChat


def add(subparsers: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "chat",
        run,
        help="ask a model about a document",
        description="Answers questions about a document. Without --question, it reads one question per line from the "
        "terminal until the end of the input (Ctrl-D). Each question stands alone: the model sees the document and the "
        "question, not the questions before.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder of a model or of a LoRA adapter, a name on the hub, the embedded smollm2-135m, or with "
        "base_url=URL the name of a model on a server",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="a setting of the model: base_url=URL, device=cpu, sampling.max_new_tokens=200",
    )
    parser.add_argument(
        "--context", required=True, type=Path, metavar="FILE", help="the document: a .txt, .md, .html or .pdf file"
    )
    parser.add_argument(
        "--question",
        action="append",
        metavar="TEXT",
        help="answer this question, print only the answer, and end; may be repeated",
    )
    parser.add_argument(
        "--prompt",
        default="plain",
        help="plain (the document, an empty line, the question), reasoning, brief, or a text file with {context} and "
        "{question} (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Answers the questions of the options, or those that are typed."""
    import asyncio

    from lf_longpo.evaluation.ask_document import DocumentChat, chat_settings
    from lf_longpo.synthesis.documents import read_text
    from lf_longpo.text.halves import refuse_halves

    for question in options.question or []:
        refuse_halves({"question": question}, "--question")
    config = chat_settings(options.model, options.overrides)
    chat = DocumentChat(config, read_text(options.context), options.prompt)
    # One loop for the whole chat; between two questions it stands still, and Ctrl-C ends the reading at once.
    with asyncio.Runner() as runner:
        try:
            runner.run(chat.start())
            return _answer(runner, chat, options.question or _typed())
        finally:
            runner.run(chat.close())


def _typed() -> Iterator[str]:
    """The lines that are typed or piped in, until the end of the input or Ctrl-C."""
    mark = "question> " if sys.stdin.isatty() else ""
    try:
        while True:
            yield input(mark)
    except (EOFError, KeyboardInterrupt):
        if mark:
            print()


def _answer(runner: "Runner", chat: "DocumentChat", questions: Iterable[str]) -> int:
    """Prints the answers as they come.

    Returns:
        The exit code: 1 if a question has no answer.
    """
    exit_code, noted = 0, False
    for question in filter(str.strip, questions):
        try:
            answer = runner.run(chat.ask(question))
        except CallFailed as error:
            exit_code = 1
            print(f"error: {error}; ask again, or ask a shorter question", file=sys.stderr)
            continue
        if answer.document_cut and not noted:
            noted = True
            print(
                f"note: the document does not fit the window of {chat.window} tokens; its middle was cut",
                file=sys.stderr,
            )
        print(answer.text, flush=True)
        if answer.truncated:
            print("note: the answer reached its limit of new tokens; raise sampling.max_new_tokens", file=sys.stderr)
    return exit_code
