"""Settings of `longpo synthesize`."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.models import ChatConfig, check_budget
from lf_longpo.config.sampling import ResponseSampling

_Hops = Annotated[int, Field(ge=1, le=10, strict=True)]
_Depth = Annotated[float, Field(ge=0, le=1)]


def _is_jsonl(path: Path) -> Path:
    if path.suffix != ".jsonl":
        raise ValueError(f"{path} must end in .jsonl, the format that is written; rename it")
    return path


_Jsonl = Annotated[Path, AfterValidator(_is_jsonl)]
Kind = Literal["open", "summary", "reasoning", "extraction", "multi_part"]
"""Kinds of questions that a model can write."""


class LengthConfig(Config):
    """Output and lengths of contexts."""

    output: _Jsonl
    """The file of questions to write; a data card with the same name is written next to it."""
    tokenizer: str
    """Counts tokens. Use the tokenizer of the model that you will train."""
    min_tokens: Positive = 8_000
    """Smallest number of tokens of a context."""
    max_tokens: Positive = 16_000
    """Largest number of tokens of a context. Each target length is drawn between the two; the context is within 5
    percent of it."""
    seed: int = 42
    """Seed of all random choices."""

    @model_validator(mode="after")
    def _range_holds_something(self) -> "LengthConfig":
        if self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}; raise it")
        return self


class MultiHopConfig(LengthConfig):
    """`longpo synthesize multihop`: published multi-hop questions over long contexts (SeaLong, arXiv 2411.08147)."""

    input: str
    """MuSiQue, HotpotQA or 2WikiMultiHopQA: a .jsonl, .json or .parquet file, or a data set on the hub.
    Questions without an answer or without their supporting paragraphs are skipped and counted."""
    input_split: str = "train"
    """Split of a data set on the hub."""
    limit: Positive | None = None
    """Number of questions to read from the start of the input. Default: all."""
    questions: Positive | None = None
    """Number of questions to write. If it is larger than the input, questions are repeated with other contexts.
    Default: the size of the input."""
    held_out: _Jsonl | None = None
    """A second file of questions. Its contexts share no document with the first file, not even a distractor."""
    held_out_questions: Positive = 100
    """Smallest number of input questions in the second file."""
    corpus: str | None = None
    """Articles with title and text: a folder of documents (.txt, .md, .html, .pdf), a .jsonl, .json, .parquet or .csv
    file, or a data set on the hub. Articles without a title or a text are skipped and counted. Default: the paragraphs
    of other questions."""
    corpus_split: str = "train"
    """Split of a data set on the hub."""
    corpus_licence: str = "unknown"
    """Licence of the corpus, for the rows and the data card."""
    article_tokens: Annotated[int, Field(ge=64, strict=True)] = 2_000
    """Largest number of tokens of an article in a context."""
    index: Path | None = None
    """Index of the corpus, written once and shared by all runs on it. Default: next to the output."""


class SelfInstructConfig(Config):
    """`longpo synthesize self-instruct`: a model writes questions about documents and answers them (LongAlign,
    arXiv 2401.18058)."""

    input: str | Annotated[list[str], Field(min_length=1)]
    """Documents: a .txt, .md, .html or .pdf file, a .jsonl, .json, .parquet or .csv file with the column `text`, a
    folder of such files, or a data set on the hub; or a list of these."""
    input_split: str = "train"
    """Split of a data set on the hub."""
    licence: str = "unknown"
    """Licence of the documents. The column `licence` of a row takes precedence."""
    output_dir: Path
    """Folder of all results and of the files that resume the run."""
    dataset_dir: Path = Path("dataset_info")
    """LLaMA-Factory's data folder, where the questions are written and registered."""
    dataset_name: str
    """The name that a training recipe's `dataset` uses."""
    model: ChatConfig
    """Writes questions and answers."""
    tokenizer: str | None = None
    """Counts tokens: that of the model to be trained. Default: the tokenizer of `model`."""
    min_tokens: Annotated[int, Field(ge=0, strict=True)] = 8_000
    """Shorter documents are skipped."""
    max_tokens: Annotated[int, Field(ge=64, strict=True)] = 64_000
    """Longer documents are divided into parts of at most this many tokens."""
    near_duplicate: Annotated[float, Field(gt=0, lt=1)] | None = 0.8
    """Documents with this share of word sequences in common, or more, are duplicates; null: only equal ones are."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = get_args(Kind)
    """Kinds of questions to draw from. Every kind is drawn once before a kind is drawn again."""
    questions_per_document: Positive = 1
    """Questions to write about each document or part of a document. Unusable questions are removed."""
    prompts: str | None = None
    """Prompts: `full`, `brief` (small models), or a folder; its files replace the files of `full` with the same names.
    Default: brief for the embedded model, full for other models."""
    sampling: ResponseSampling = ResponseSampling()
    """Sampling of questions and answers. Those that are cut off at max_new_tokens are removed."""
    seed: int = 42
    """Seed of all random choices."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, by the `price` of the model. Raise it to resume the run."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The exit code is 1 if a larger share of the documents failed."""

    @property
    def inputs(self) -> list[str]:
        """`input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input

    @model_validator(mode="after")
    def _settings_fit(self) -> "SelfInstructConfig":
        if self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}; raise it")
        check_budget(self.max_cost, self.model)
        return self


class NeedleConfig(LengthConfig):
    """`longpo synthesize needle`: facts hidden in long documents, written without a model."""

    questions: Positive = 20
    """Number of questions. Each has its own document."""
    hops: Annotated[tuple[_Hops, ...], Field(min_length=1)] = (1, 2)
    """Number of facts that an answer needs. Questions take these numbers in turn."""
    depths: Annotated[tuple[_Depth, ...], Field(min_length=1)] = (
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
    )
    """Position of the fact with the answer, from the start (0) to the end (1) of the document. Questions take these
    positions in turn."""


class MixConfig(Config):
    """`longpo synthesize mix`: questions from several files, filtered and split."""

    inputs: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files of questions, or data sets on the hub."""
    input_split: str = "train"
    """Split of a data set on the hub."""
    output: _Jsonl
    """The file of questions to write; a data card with the same name is written next to it."""
    held_out: _Jsonl | None = None
    """A second file of questions. They share no document with the questions of the first file."""
    held_out_questions: Positive = 100
    """Smallest number of questions in the second file."""
    tokenizer: str
    """Counts tokens. Use the tokenizer of the model that you will train."""
    min_tokens: Annotated[int, Field(ge=0, strict=True)] = 0
    """Questions with shorter contexts are removed."""
    max_tokens: Positive | None = None
    """Questions with longer contexts are removed. Default: no limit."""
    languages: tuple[str, ...] = ()
    """Languages of contexts to keep, as ISO 639-1 codes (en, zh). Default: all."""
    questions_per_context: Positive = 1
    """Number of questions to keep for each context. Further questions are removed as duplicates."""
    near_duplicate: Annotated[float, Field(gt=0, lt=1)] | None = 0.8
    """Contexts with this share of word sequences in common, or more, are duplicates; null: only equal ones are."""
    seed: int = 42
    """Seed of all random choices."""
