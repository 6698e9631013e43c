"""The head of masked words that a checkpoint may have, under the names of BERT's own checkpoints."""

from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from tokenizers import Tokenizer

from .encoder_files import find_weights, read_weights

HEAD: Final = "cls.predictions."
"""How the names of its tensors begin."""
MASKS: Final = ("[MASK]", "<mask>")


def read_masked_head(folder: Path) -> dict[str, NDArray[Any]]:
    """Return its tensors but the decoder, which is the table of words: `transform.dense`, `transform.LayerNorm`, `bias`; none
    where the checkpoint has no such head.
    """
    return {
        name.removeprefix(HEAD).replace("gamma", "weight").replace("beta", "bias"): array
        for name, array in read_weights(find_weights(folder)).items()
        if name.startswith(HEAD) and not name.startswith(f"{HEAD}decoder.")
    }


def find_mask(tokenizer: Tokenizer) -> tuple[str, int] | None:
    """Return the mask token of a tokenizer and its id; None where it has none."""
    found = ((name, tokenizer.token_to_id(name)) for name in MASKS)
    return next(((name, number) for name, number in found if number is not None), None)
