"""The result of a pre-training: a folder in the form of BERT's own checkpoints, which a recipe names as its encoder."""

import json
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ...schemas.manifest import EncoderSpec, Sha256
from ..model.encoder_files import CONFIG, SIZES, TOKENIZER, WEIGHTS
from ..run_folders.os_errors import as_os_error, save_tokenizer, write_text
from ..run_folders.overlaps import find_others, find_working_folder
from ..run_folders.provenance import Environment

RECORD: Final = "pretraining.json"


class PretrainingRecord(BaseModel):
    """`pretraining.json`: what an encoder was pre-trained on and how it went."""

    model_config = ConfigDict(frozen=True)

    name: str
    encoder: str
    """Where it began: the recipe's `encoder.source`."""
    recipe_sha256: Sha256
    seed: int
    steps: int
    cpu_seconds: float
    objectives: dict[str, str]
    """What each had to learn from."""
    first_loss: dict[str, float]
    """Mean loss of each objective over the first steps."""
    last_loss: dict[str, float]
    """Smoothed loss of each objective at the end."""
    texts: dict[str, float]
    """Counts: documents, texts, tokens, texts as long as the limit, share of unknown tokens."""
    new_words: list[str] = []
    environment: Environment
    data_files: dict[str, Sha256] = {}


def find_problem(out: Path) -> str | None:
    """Return why no encoder can be written here."""
    if out.exists() and not out.is_dir():
        return f"{out}: a file, expected a folder for the encoder; give --out another one"
    if out.exists() and any(out.iterdir()) and not (out / RECORD).is_file():
        return f"{out}: not empty and not an encoder that was pre-trained here; give --out another folder"
    if not out.exists():
        return None
    return next(chain(find_working_folder(out), find_others(out, {WEIGHTS, CONFIG, TOKENIZER, RECORD})), None)


def write_encoder(
    out: Path, spec: EncoderSpec, weights: Mapping[str, NDArray[Any]], tokenizer: Tokenizer, record: PretrainingRecord
) -> None:
    """Write the folder aside and rename it; one that was there is replaced by the complete new one."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with as_os_error(part / WEIGHTS):
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, part / WEIGHTS)
    (part / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
    sizes = {key: getattr(spec, name) for name, key in SIZES.items()}
    types = len(weights["bert.embeddings.token_type_embeddings.weight"])
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", **sizes, "type_vocab_size": types}
    config |= {"layer_norm_eps": spec.layer_norm_eps, "hidden_act": "gelu"}
    write_text(part / CONFIG, json.dumps(config, indent=2) + "\n")
    save_tokenizer(tokenizer, part / TOKENIZER)
    write_text(part / RECORD, record.model_dump_json(indent=2) + "\n")
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)


def read_record(folder: Path) -> PretrainingRecord | None:
    """Return the record of a folder, None where it has none. SetupError for a damaged one."""
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        return PretrainingRecord.model_validate_json(file.read_bytes())
    except ValidationError:
        raise SetupError(f"{file}: not the record of a pre-training; pre-train again into another folder") from None


def describe_pretraining(folder: Path | None) -> dict[str, Any] | None:
    """Return the record as it stands in that of a training; None where the encoder was not pre-trained here."""
    record = read_record(folder) if folder is not None else None
    return record.model_dump() if record else None
