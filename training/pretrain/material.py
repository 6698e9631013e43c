"""What a pre-training learns from, and the encoder that begins: read, counted, and refused where it cannot be learned from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from ...runtime.errors import SetupError
from ...schemas.manifest import Sha256
from ..model.encoders import Checkpoint, open_checkpoint
from ..prepare.tasks import TaskData
from ..recipe.keys.pretraining import Pretraining
from ..recipe.recipe import Recipe
from ..run_folders.provenance import digest_texts
from .encoded import EncodedText
from .texts import Document, LabelledText, Pair, documents_of, labelled_of, read_documents, read_pairs
from .vocabulary import extend_vocabulary

MOSTLY: Final = 1 / 3
TOLERATED: Final = 0.02
"""From a third of unknown tokens on a text is mostly unknown; a fiftieth of the texts may be."""


@dataclass(frozen=True)
class Material:
    """What is learned from, and the encoder that begins."""

    documents: list[Document]
    """None where no objective reads texts."""
    pairs: list[Pair]
    checkpoint: Checkpoint
    new_words: list[str]
    labelled: list[LabelledText] = field(default_factory=list)
    """What the objective `labelled_texts` reads."""

    def texts(self) -> Iterator[str]:
        return _texts_of(self.documents, self.pairs)


def read_material(recipe: Recipe, settings: Pretraining, data: Path, tasks: Sequence[TaskData]) -> Material:
    """Read the texts and open the encoder; from scratch its vocabulary is trained on the texts, those of the tasks too.

    SetupError for whatever is wrong with them.
    """
    reads_texts = settings.objectives.reads_texts
    if settings.texts is None and not tasks and reads_texts:
        raise recipe.refusal(("pretrain",), "no `texts`, and no tasks whose training texts could be read; name some")
    _refuse_unread_texts(recipe, settings)
    own = documents_of(tasks)
    documents = own if settings.texts is None else read_documents(settings.texts, data, seed=recipe.data_seed)
    labelled = labelled_of(tasks) if settings.objectives.labelled_texts else []
    if settings.objectives.labelled_texts and not labelled:
        place = ("pretrain", "objectives", "labelled_texts")
        raise recipe.refusal(place, "the recipe has no classification, whose rows have the labels; name one in `tasks`")
    embedding = settings.objectives.sentence_embedding
    pairs = read_pairs(embedding.pairs, data, seed=recipe.data_seed) if embedding else []
    checkpoint = open_checkpoint(
        recipe.encoder, chain(_texts_of(documents, pairs), _texts_of(own, [])), seed=recipe.seed
    )
    if checkpoint.delta is not None or recipe.encoder.frozen:
        what = "is frozen" if recipe.encoder.frozen else "is a delta, whose encoder can only be read"
        raise recipe.refusal(
            ("encoder",), f"{recipe.encoder.source} {what}; pre-training changes it: take another encoder"
        )
    if recipe.max_tokens > checkpoint.spec.max_positions:
        limit = checkpoint.spec.max_positions
        raise recipe.refusal(("max_tokens",), f"{recipe.max_tokens} is more than the encoder's max_positions {limit}")
    words: list[str] = []
    if settings.new_words is not None:
        checkpoint, words = extend_vocabulary(checkpoint, _texts_of(documents, pairs), settings.new_words)
    return Material(documents if reads_texts else [], pairs, checkpoint, words, labelled)


def _refuse_unread_texts(recipe: Recipe, settings: Pretraining) -> None:
    """Raise SetupError for texts that no objective reads, and from which no vocabulary is made."""
    if settings.texts is None or settings.objectives.reads_texts or settings.new_words is not None:
        return
    if recipe.encoder.source != "scratch":
        others = {"sentence_embedding": "its `pairs`", "labelled_texts": "rows of the tasks"}
        said = [f"{name} reads {what}" for name, what in others.items() if getattr(settings.objectives, name)]
        problem = f"has no effect: {' and '.join(said)}, and `encoder` has its vocabulary; leave it out"
        raise recipe.refusal(("pretrain", "texts"), problem)


def _texts_of(documents: Sequence[Document], pairs: Sequence[Pair]) -> Iterator[str]:
    yield from (text.text for document in documents for text in document)
    for pair in pairs:
        yield from (pair.text, pair.other, *([] if pair.negative is None else [pair.negative]))


def count_texts(material: Material, encoded: Sequence[EncodedText], limit: int) -> dict[str, float]:
    unknown_ids = np.array(sorted(material.checkpoint.special.unknown_ids), np.int32)
    tokens = sum(len(text.ids) for text in encoded)
    unknown = sum(int(np.isin(text.ids, unknown_ids).sum()) for text in encoded)
    return {
        "documents": len(material.documents),
        "texts": len(encoded),
        "tokens": tokens,
        "at_limit": sum(len(text.ids) >= limit for text in encoded),
        "unknown_share": round(unknown / max(1, tokens), 4),
    }


def refuse_unknown(checkpoint: Checkpoint, encoded: Sequence[EncodedText], *, allow: bool) -> None:
    unknown_ids = np.array(sorted(checkpoint.special.unknown_ids), np.int32)
    mostly = sum(bool(np.isin(text.ids, unknown_ids).sum() > MOSTLY * len(text.ids)) for text in encoded)
    if not allow and mostly > TOLERATED * len(encoded):
        raise SetupError(
            f"texts of pretrain that are mostly unknown to the encoder's vocabulary: {mostly / len(encoded):.0%}; take an "
            "encoder of their language, `encoder: scratch`, `new_words`, or set `allow_unknown: true`"
        )


def digest_files(settings: Pretraining, folder: Path) -> dict[str, Sha256]:
    """Return the SHA-256 of each file of texts and pairs, by its path in the recipe."""
    embedding = settings.objectives.sentence_embedding
    return digest_texts([*(settings.texts or ()), *(embedding.pairs if embedding else ())], folder)
