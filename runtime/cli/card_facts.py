"""Reads what a card says beside the manifest from a model folder: the recipe's description and data sets, the attribution."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...schemas.manifest import ModelManifest
from ..model.folders.card import CardFacts, find_datasets


def read_facts(folder: Path, manifest: ModelManifest, *, license_: str, languages: Sequence[str]) -> CardFacts:
    """Return the facts; those whose files the folder lacks are empty."""
    recipe, attribution = _read_recipe(folder, manifest), manifest.path_of("attribution")
    text = folder / attribution if attribution is not None else None
    return CardFacts(
        license=license_,
        languages=languages,
        datasets=find_datasets(recipe),
        description=str(recipe.get("description") or ""),
        attribution=text.read_text(encoding="utf-8") if text is not None and text.is_file() else "",
    )


def _read_recipe(folder: Path, manifest: ModelManifest) -> dict[str, Any]:
    path = manifest.path_of("recipe")
    if path is None or not (folder / path).is_file():
        return {}
    try:
        found = yaml.safe_load((folder / path).read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
