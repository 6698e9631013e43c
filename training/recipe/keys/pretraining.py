"""What a recipe says of self-supervised pre-training: the texts, the objectives, and how long."""

from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from .reading import Columns, Count, Frozen, Listing, Positive, Share, Text, beside_the_recipe

NAMES: Final = ("masked_words", "sentence_embedding", "next_text", "labelled_texts")


class _FileSource(Frozen):
    path: str
    """Relative to --data; with a leading `./` beside the recipe."""
    format: Text | None = None
    """The name of the file's format; without it the suffix decides."""
    rows: Count | None = None
    """At most so many rows (of texts: documents), drawn by the seed of the data."""

    @field_validator("path")
    @classmethod
    def _beside_the_recipe(cls, path: str, info: ValidationInfo) -> str:
        return beside_the_recipe(path, info)


class TextSource(_FileSource):
    """A file of texts, or the folder of a data set that `murmura ingest` made."""

    column: str = "text"
    """Holds the text, or a list of texts in their order."""
    group: Text | None = None
    """A column: rows with one value of it are one document, in the order of the file."""


class PairSource(_FileSource):
    """A file of texts that mean the same."""

    columns: Columns = Columns()
    """`text` and `text_pair` of them."""
    negative: Text | None = None
    """A column: a text that does not mean the same (NLI's contradictions, say)."""
    where: Listing | None = None
    """Keep rows whose field has one of these values."""


def _as_sources(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


def _as_weight(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"weight": value}
    return {} if value is None else value


class MaskedWords(Frozen):
    """Masked language model (Devlin et al. 2019), whole words (Cui et al. 2019), drawn anew each time (Liu et al. 2019)."""

    weight: Positive = 1.0
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Of the tokens of a text that are to be found."""


class SentenceEmbedding(Frozen):
    """SimCSE (Gao et al. 2021): a text and itself under another dropout, or pairs that mean the same."""

    weight: Positive = 1.0
    temperature: Positive = 0.05
    pairs: Annotated[tuple[PairSource, ...], BeforeValidator(_as_sources)] = ()
    """Read instead of the texts where there are any."""


class NextText(Frozen):
    """Next sentence (Devlin et al. 2019), or next turn of a dialogue."""

    weight: Positive = 1.0
    hard_negatives: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the negatives that come from the same document."""


class LabelledTexts(Frozen):
    """Supervised contrastive learning (Khosla et al. 2020) on the training rows of the recipe's classifications and the names of
    their labels: texts of a label lie near each other.
    """

    weight: Positive = 1.0
    temperature: Positive = 0.1


class Objectives(Frozen):
    """What is learned. A step minimises the sum of the objectives' losses times their weights."""

    masked_words: Annotated[MaskedWords | None, BeforeValidator(_as_weight)] = None
    sentence_embedding: Annotated[SentenceEmbedding | None, BeforeValidator(_as_weight)] = None
    next_text: Annotated[NextText | None, BeforeValidator(_as_weight)] = None
    labelled_texts: Annotated[LabelledTexts | None, BeforeValidator(_as_weight)] = None

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if not any(getattr(self, name) for name in NAMES):
            raise ValueError(f"nothing to learn; expected some of {', '.join(NAMES)}")
        return self

    @property
    def reads_texts(self) -> bool:
        """Whether one of them reads texts; pairs and the rows of tasks are others."""
        of_texts = self.sentence_embedding is not None and not self.sentence_embedding.pairs
        return of_texts or self.masked_words is not None or self.next_text is not None


def _as_objectives(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return (
            {name: {} if each is None else each for name, each in value.items()} if isinstance(value, dict) else value
        )
    for name in value:
        if name not in NAMES:
            raise ValueError(f"unknown objective {str(name)[:40]!r}; expected some of {', '.join(NAMES)}")
    return {name: {} for name in value}


class NewWords(Frozen):
    """Words of the texts that the vocabulary lacks and gets."""

    most: Count = 1000
    """At most so many, those first that save the most pieces."""
    least_count: Count = 10
    """A word occurs so often in the texts."""
    least_pieces: Annotated[int, Field(ge=2)] = 3
    """It is split into so many pieces, or is unknown."""


class Pretraining(Frozen):
    """The stage `pretrain`: before the tasks are learned, the encoder learns from texts without labels."""

    texts: Annotated[list[TextSource] | None, BeforeValidator(lambda v: v if v is None else _as_sources(v))] = None
    """Without them the training texts of the recipe's tasks."""
    objectives: Annotated[Objectives, BeforeValidator(_as_objectives)] = Objectives(masked_words=MaskedWords())
    epochs: Positive = 3
    """Passes over what the objective with the most rows reads: texts, pairs, or rows with labels."""
    steps: Count | None = None
    """Instead of epochs."""
    batch_size: Count = 32
    """Rows of each objective in a step."""
    lr: Positive | None = None
    """Without it 1e-4, from scratch 7e-4."""
    dropout: Share = 0.1
    new_words: Annotated[NewWords | None, BeforeValidator(lambda v: {} if v is True else v or None)] = None

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        embedding = self.objectives.sentence_embedding
        if embedding is not None and not embedding.pairs and self.dropout == 0:
            raise ValueError(
                "sentence_embedding without pairs needs a dropout above 0: without it both views are the same"
            )
        if embedding is not None and self.batch_size < 2:
            raise ValueError(
                "sentence_embedding needs a batch_size of 2 or more: the negatives are the batch's other texts"
            )
        return self
