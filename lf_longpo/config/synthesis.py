"""What can be set for `longpo synthesize`."""

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
        raise ValueError(f"{path} must end in .jsonl, which is what is written")
    return path


_Jsonl = Annotated[Path, AfterValidator(_is_jsonl)]
Kind = Literal["open", "summary", "reasoning", "extraction", "multi_part"]
"""What a question asks for."""


class LengthConfig(Config):
    """How long contexts become."""

    output: _Jsonl
    """The file of questions to write; a data card of the same name is written beside it."""
    tokenizer: str
    """Counts tokens: that of the model to be trained."""
    min_tokens: Positive = 8_000
    """Fewest tokens of a context ..."""
    max_tokens: Positive = 16_000
    """... and most; each question's target is drawn between the two, and met to 5 percent."""
    seed: int = 42

    @model_validator(mode="after")
    def _range_holds_something(self) -> "LengthConfig":
        if self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}")
        return self


class MultiHopConfig(LengthConfig):
    """`longpo synthesize multihop`: published multi-hop questions over long contexts (SeaLong, arXiv 2411.08147)."""

    input: str
    """MuSiQue, HotpotQA or 2WikiMultiHopQA: a .jsonl, .json or .parquet file, or a data set on the hub.
    Questions without an answer or without their supporting paragraphs are passed over and counted."""
    input_split: str = "train"
    """Split of a hub data set."""
    limit: Positive | None = None
    """Questions to take from the input's beginning. Default: all."""
    questions: Positive | None = None
    """Questions to make; more than the input has are made over other contexts. Default: as many as the input has."""
    held_out: _Jsonl | None = None
    """A second file, for questions in whose contexts no document of the first's stands, be it a distractor."""
    held_out_questions: Positive = 100
    """How many of the input's questions, at least."""
    corpus: str | None = None
    """Articles with title and text: a folder of documents (.txt, .md, .html, .pdf), a .jsonl, .json, .parquet or .csv
    file, or a data set on the hub. Articles without either are passed over and counted. Default: other questions'
    paragraphs."""
    corpus_split: str = "train"
    """Split of a hub data set."""
    corpus_licence: str = "unknown"
    """For the rows and the data card."""
    article_tokens: Annotated[int, Field(ge=64, strict=True)] = 2_000
    """Most tokens of an article that a context takes up."""
    index: Path | None = None
    """Where the corpus is indexed, once for all runs on it. Default: beside the output."""


class SelfInstructConfig(Config):
    """`longpo synthesize self-instruct`: questions about documents, and answers, by a model (LongAlign, arXiv
    2401.18058)."""

    input: str | Annotated[list[str], Field(min_length=1)]
    """Documents: a .txt, .md, .html or .pdf file, a .jsonl, .json, .parquet or .csv file whose rows have a `text`, a
    folder of such files, or a data set on the hub; or a list of these."""
    input_split: str = "train"
    """Split of a hub data set."""
    licence: str = "unknown"
    """Of the documents; a row's own `licence` goes before it."""
    output_dir: Path
    """Everything the run makes and needs to carry on."""
    dataset_dir: Path = Path("dataset_info")
    """LLaMA-Factory's data folder, where the questions are written and registered."""
    dataset_name: str
    """The name that a training recipe's `dataset` uses."""
    model: ChatConfig
    """Writes questions and answers."""
    tokenizer: str | None = None
    """Counts tokens: that of the model to be trained. Default: the model."""
    min_tokens: Annotated[int, Field(ge=0, strict=True)] = 8_000
    """Shorter documents are left out ..."""
    max_tokens: Annotated[int, Field(ge=64, strict=True)] = 64_000
    """... and longer ones are divided into parts of at most so many tokens."""
    near_duplicate: Annotated[float, Field(gt=0, lt=1)] | None = 0.8
    """Share of common word sequences from which two documents count as one; null: only equal ones do."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = get_args(Kind)
    """Kinds of questions to draw from, without one coming twice before all others came once."""
    questions_per_document: Positive = 1
    """Questions to write about each document, or part of one; those that are no good are left out."""
    prompts: str | None = None
    """`full`, `brief` (small models), or a folder whose files stand in for those of `full` that have the same name.
    Default: brief for the embedded model, full for others."""
    sampling: ResponseSampling = ResponseSampling()
    """For questions and answers; what is cut off by max_new_tokens is left out."""
    seed: int = 42
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, at the model's `price`; it can be carried on."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The run exits with 1 when a larger share of the documents failed."""

    @property
    def inputs(self) -> list[str]:
        """What `input` names, one by one."""
        return [self.input] if isinstance(self.input, str) else self.input

    @model_validator(mode="after")
    def _settings_fit(self) -> "SelfInstructConfig":
        if self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}")
        check_budget(self.max_cost, self.model)
        return self


class NeedleConfig(LengthConfig):
    """`longpo synthesize needle`: facts hidden in long documents, made without a model."""

    questions: Positive = 20
    """Questions to make, each over a document of its own."""
    hops: Annotated[tuple[_Hops, ...], Field(min_length=1)] = (1, 2)
    """Facts that an answer takes; questions go through these in turn."""
    depths: Annotated[tuple[_Depth, ...], Field(min_length=1)] = (
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
    )
    """Where the fact with the answer stands, from the beginning (0) to the end (1); in turn likewise."""


class MixConfig(Config):
    """`longpo synthesize mix`: questions of several files as one set, filtered and split."""

    inputs: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files of questions, or data sets on the hub."""
    input_split: str = "train"
    """Split of a hub data set."""
    output: _Jsonl
    """The file of questions to write; a data card of the same name is written beside it."""
    held_out: _Jsonl | None = None
    """A second file, for questions that share no document with those of the first."""
    held_out_questions: Positive = 100
    """How many, at least."""
    tokenizer: str
    """Counts tokens: that of the model to be trained."""
    min_tokens: Annotated[int, Field(ge=0, strict=True)] = 0
    """Shorter contexts are left out ..."""
    max_tokens: Positive | None = None
    """... and longer ones. Default: none."""
    languages: tuple[str, ...] = ()
    """Languages of contexts that stay, as ISO 639-1 codes (en, zh). Default: all."""
    questions_per_context: Positive = 1
    """Questions over one context that stay; the others are left out as duplicates."""
    near_duplicate: Annotated[float, Field(gt=0, lt=1)] | None = 0.8
    """Share of common word sequences from which two contexts count as one; null: only equal ones do."""
    seed: int = 42
