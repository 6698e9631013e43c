"""Everything before the first step of a pre-training: texts read and encoded, the network made, the steps laid out."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from ...runtime.errors import SetupError
from ..compute import dealing
from ..compute.device import open_accelerator, precision_of
from ..model.encoders import Checkpoint, build_encoder, locate
from ..model.masked_head import MASKS, find_mask, read_masked_head
from ..recipe.keys.pretraining import Pretraining
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import RunFolder
from .encoded import EncodedText, encode_texts
from .material import Material, count_texts, refuse_unknown
from .network import Network, Pretrained
from .objectives.labelled_texts import LabelledTexts
from .objectives.masked_words import MaskedWords
from .objectives.next_text import NextText
from .objectives.objective import Objective
from .objectives.sentence_embedding import SentenceEmbedding

LR: Final = 1e-4
LR_FROM_SCRATCH: Final = 7e-4


def prepare(recipe: Recipe, settings: Pretraining, material: Material, folder: RunFolder) -> Pretrained:
    """Open the device, encode the texts, make the network and lay out the steps."""
    accelerator = open_accelerator(recipe, folder)
    if accelerator.num_processes > 1:
        raise SetupError(
            f"pre-training takes one process, found {accelerator.num_processes}; run `murmura pretrain` first and name its "
            "folder as `encoder`"
        )
    if parts := material.checkpoint.spec.parts:
        raise SetupError(
            f"encoder {recipe.encoder.source}: has {', '.join(parts)} in its graph, which a checkpoint cannot hold; name its base"
        )
    tokenizer = Tokenizer.from_str(material.checkpoint.tokenizer.to_str())
    tokenizer.enable_truncation(recipe.max_tokens)
    flat = [text for document in material.documents for text in document]
    encoded = encode_texts([text.text for text in flat], tokenizer, material.checkpoint.special)
    others = [*material.texts(), *(row.text for row in material.labelled)] if not flat else []
    read = encoded or encode_texts(others, tokenizer, material.checkpoint.special)
    counts = count_texts(material, read, recipe.max_tokens)
    refuse_unknown(material.checkpoint, read, allow=recipe.allow_unknown)
    torch.manual_seed(recipe.seed)
    encoder = build_encoder(material.checkpoint.spec, _encoder_weights(material.checkpoint), dropout=settings.dropout)
    objectives = _Makers(recipe, settings, material, tokenizer, encoder, encoded, [text.place for text in flat]).make()
    most = max(len(each.lengths) for each in objectives)
    steps = settings.steps or max(1, math.ceil(most * settings.epochs / settings.batch_size))
    rows = steps * settings.batch_size
    plans = [
        dealing.plan([each.lengths], [rows], settings.batch_size, recipe.seed + at)
        for at, each in enumerate(objectives)
    ]
    plan = [[own[step][0][1] for own in plans] for step in range(steps)]
    network = Network(encoder, objectives)
    return Pretrained(recipe, settings, material, network, plan, folder, accelerator, precision_of(recipe), counts)


def lr_of(recipe: Recipe, settings: Pretraining) -> float:
    """Return the learning rate with its default resolved."""
    return settings.lr or (LR_FROM_SCRATCH if recipe.encoder.source == "scratch" else LR)


@dataclass(frozen=True)
class _Makers:
    recipe: Recipe
    settings: Pretraining
    material: Material
    tokenizer: Tokenizer
    encoder: nn.Module
    encoded: list[EncodedText]
    places: list[str]

    def make(self) -> list[Objective]:
        made = [self._masked_words(), self._sentence_embedding(), self._next_text(), self._labelled_texts()]
        found = [each for each in made if each is not None]
        for each in found:
            if not each.lengths:
                problem = f"nothing to learn from: {each.describe()}; expected documents of several texts"
                raise self.recipe.refusal(("pretrain", "objectives", each.name), problem)
        return found

    def _masked_words(self) -> MaskedWords | None:
        settings = self.settings.objectives.masked_words
        if settings is None:
            return None
        made = MaskedWords(
            settings,
            self.encoded,
            self.places,
            config=self.encoder.config,
            table=self.encoder.embeddings.word_embeddings.weight,
            mask_id=_mask_of(self.tokenizer),
            words=_words_of(self.material.checkpoint),
        )
        _load_head(made, self.recipe, len(self.material.new_words))
        return made

    def _sentence_embedding(self) -> SentenceEmbedding | None:
        settings = self.settings.objectives.sentence_embedding
        if settings is None:
            return None
        if not settings.pairs:
            ids = [text.ids for text in self.encoded]
            return SentenceEmbedding(settings, [(each, each, None) for each in ids], self.places)
        pairs, special = self.material.pairs, self.material.checkpoint.special
        sides = [
            [text.ids for text in encode_texts(side, self.tokenizer, special)]
            for side in ([p.text for p in pairs], [p.other for p in pairs], [p.negative or "" for p in pairs])
        ]
        views = [
            (a, b, none if pair.negative is not None else None) for pair, a, b, none in zip(pairs, *sides, strict=True)
        ]
        return SentenceEmbedding(settings, views, [pair.place for pair in pairs])

    def _next_text(self) -> NextText | None:
        settings = self.settings.objectives.next_text
        if settings is None:
            return None
        return NextText(settings, self.material.documents, self.tokenizer, self.encoder.config.hidden_size)

    def _labelled_texts(self) -> LabelledTexts | None:
        settings, rows = self.settings.objectives.labelled_texts, self.material.labelled
        if settings is None:
            return None
        texts = encode_texts([row.text for row in rows], self.tokenizer, self.material.checkpoint.special)
        tasks, labels, places = ([getattr(row, part) for row in rows] for part in ("task", "label", "place"))
        return LabelledTexts(settings, [text.ids for text in texts], tasks, labels, places)


def _encoder_weights(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    return {name: array for name, array in checkpoint.weights.items() if not name.startswith("heads.")}


def _mask_of(tokenizer: Tokenizer) -> int:
    if (found := find_mask(tokenizer)) is None:
        raise SetupError(f"masked_words: the encoder's tokenizer has no mask token; expected one of {', '.join(MASKS)}")
    return found[1]


def _words_of(checkpoint: Checkpoint) -> NDArray[np.int32]:
    numbers = set(checkpoint.tokenizer.get_vocab().values()) - checkpoint.special.kept
    return np.array(sorted(numbers), np.int32)


def _load_head(masked: MaskedWords, recipe: Recipe, new: int) -> None:
    """Go on with the head that the checkpoint has, if it has one; a new word's bias begins as 0."""
    if recipe.encoder.source == "scratch":
        return
    read = read_masked_head(locate(recipe.encoder.source))
    found = {name: torch.from_numpy(array) for name, array in read.items()}
    own = {name: p for name, p in masked.head.named_parameters() if not name.startswith("decoder.")}
    if new and "bias" in found:
        found["bias"] = torch.cat([found["bias"], torch.zeros(new)])
    if {name: p.shape for name, p in own.items()} == {name: p.shape for name, p in found.items()}:
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(found[name])
