"""Pairs of the same prompt, as `longpo train` computes them: one row with the prompt and its distinct responses."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from lf_longpo.plugin.check.examples import Lengths, Measured
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.memory_estimate import Model
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.train.groups import PairSize, grouped, step_size


class Group(NamedTuple):
    """A row of `longpo train`.

    Attributes:
        lengths: tokens of the prompt and of each distinct response.
        pairs: lengths of its pairs.
    """

    lengths: Lengths
    pairs: list[Lengths]

    @property
    def tokens(self) -> int:
        """Tokens of the row."""
        return self.lengths.prompt + sum(self.lengths.responses)


def groups_of(measured: Iterable[Measured], max_row_tokens: int | None = None) -> list[Group]:
    """The rows of `longpo train` for data sets that it trains on together.

    Args:
        measured: the data sets.
        max_row_tokens: the option of `longpo train`.
    """
    pairs = [pair for examples in measured for pair in zip(examples.kept, examples.texts, strict=True)]
    sizes = [_size(lengths, texts) for lengths, texts in pairs]
    found = []
    for part in grouped(sizes, max_row_tokens):
        responses = {key: value for number in part for key, value in sizes[number].responses.items()}
        lengths = Lengths(sizes[part[0]].prompt, tuple(responses.values()))
        found.append(Group(lengths, [pairs[number][0] for number in part]))
    return found


def _size(lengths: Lengths, texts: tuple[str, ...]) -> PairSize:
    # A prompt that is cut to another length has other tokens, and so has a response.
    prompt, *responses = texts
    sides = zip(responses, lengths.responses, strict=True)
    return PairSize(
        f"{prompt} {lengths.prompt}", lengths.prompt, {f"{text} {length}": length for text, length in sides}
    )


def pairs_per_group(groups: Sequence[Group]) -> float:
    """The mean number of pairs of a row; 1 if there are no rows."""
    return sum(len(group.pairs) for group in groups) / len(groups) if groups else 1.0


def batch_of(groups: Sequence[Group], run: Arguments) -> int:
    """Number of rows that `longpo train` computes at the same time."""
    training = run.training
    batch, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    return step_size(batch, accumulation, pairs_per_group(groups)).batch


def report_groups(groups: Sequence[Group], model: Model | None, max_row_tokens: int | None, findings: Findings) -> None:
    """Reports prompts, pairs and the longest row where any prompt has several pairs.

    Args:
        groups: the rows.
        model: its sizes; None: the time is not estimated.
        max_row_tokens: the option of `longpo train`.
        findings: gets the results.
    """
    if not groups:
        return
    longest = max(groups, key=lambda group: group.tokens)
    if max_row_tokens and longest.tokens > max_row_tokens:
        findings.warn(
            "--max-row-tokens",
            f"a single pair has {longest.tokens:,} tokens, more than {max_row_tokens:,}, and is not divided; raise "
            "--max-row-tokens, or lower cutoff_len",
        )
    if all(len(group.pairs) == 1 for group in groups):
        return
    largest = max(groups, key=lambda group: len(group.pairs))
    facts: dict[str, Any] = {
        "rows": len(groups),
        "pairs": sum(len(group.pairs) for group in groups),
        "pairs of the largest row": len(largest.pairs),
        "responses of the largest row": len(largest.lengths.responses),
        "tokens of the longest row": longest.tokens,
    }
    if model is not None:
        facts |= {
            "times as fast as plain LLaMA-Factory, by the products": round(_ratio(groups, model), 1),
            "the longest row": round(_ratio([longest], model), 1),
        }
    findings.facts["rows of one prompt"] = facts


def _ratio(groups: Sequence[Group], model: Model) -> float:
    """Products of plain LLaMA-Factory, which computes two rows for each pair, over those of `longpo train`."""
    stock = sum(2 * _products(model, pair.total, pair.total**2 / 2) for group in groups for pair in group.pairs)
    return stock / sum(_group_products(model, group.lengths) for group in groups)


def _group_products(model: Model, lengths: Lengths) -> float:
    prompt, responses = lengths
    seen = prompt**2 / 2 + sum(prompt * response + response**2 / 2 for response in responses)
    return _products(model, prompt + sum(responses), seen)


def _products(model: Model, tokens: int, seen: float) -> float:
    """Products of a forward pass.

    Args:
        model: its sizes.
        tokens: number of tokens.
        seen: number of pairs of a token and a token that it attends to.
    """
    return tokens * model.parameters + 2 * seen * model.layers * model.hidden
