"""The pairs that a reviewer chose from the responses of questions without a pair, with their training prompts."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict

from lf_longpo.data.choices import choice_key, responses_of
from lf_longpo.data.pairs import QUESTION_ID
from lf_longpo.data.questions import read_questions
from lf_longpo.data.records import PreferencePair
from lf_longpo.data.review import SIDES, Decision
from lf_longpo.errors import TextTooLong, UserError
from lf_longpo.export.run_responses import prompt_encoder, prompt_of
from lf_longpo.files.journal import Row
from lf_longpo.run_folder.contents import RunFolder


def chosen_pairs(
    run: RunFolder, choices: Mapping[str, Decision], with_pair: Collection[str], list_answers: bool
) -> Iterator[tuple[str, Row]]:
    """Streams the pairs, each with its location, in the order of the run's input.

    Args:
        run: the run.
        choices: the decisions `choose`, see `Reviews.choices`.
        with_pair: ids of questions with a pair of the run; their choices do not count.
        list_answers: whether the data set's column `answer` holds lists.

    Raises:
        UserError: the run's input or its template cannot be read here, or a pair does not fit `pairs.cutoff_len`.
    """
    encoder, render_of = prompt_encoder(run), prompt_of(run)
    for question in read_questions(run.questions):
        choice = choices.get(choice_key(question.id))
        if choice is None or question.id in with_pair:
            continue
        sides, render = responses_of(choice), render_of(question)
        texts = {side: encoder.written(sides[side]) for side in SIDES}
        try:
            context = encoder.fit(question.context, render, list(texts.values()))
        except TextTooLong as error:
            fix = "undo the choice on its page in longpo view, or choose shorter responses"
            raise UserError(
                f"question {question.id!r}: the chosen pair does not fit pairs.cutoff_len: {error}; {fix}"
            ) from None
        pair = PreferencePair(
            question.id,
            question.question,
            list(question.answers) if list_answers else " / ".join(question.answers),
            render(context),
            texts["chosen"],
            texts["rejected"],
            sides["chosen"].reward,
            sides["rejected"].reward,
            sides["chosen"].index,
            sides["rejected"].index,
        )
        system = {"system": run.config.system} if run.config.system else {}
        several = {QUESTION_ID: question.id} if run.config.pairs.per_question > 1 else {}
        yield f"question {question.id!r}", asdict(pair) | system | several
