"""The state of a pre-training under way, from which `--resume` goes on. Rows, rates, masks and dropout follow from the step."""

import json
from dataclasses import dataclass
from hashlib import sha256

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ..compute.state_file import UNREADABLE, CannotResume, read_state_file, restore_parameters, write_state_file
from ..recipe.recipe import Recipe
from ..run_folders.provenance import Environment, describe_environment
from ..run_folders.run_folder import STATE, RunFolder
from .network import Pretrained, Standing

ADVICE = "pre-train without --resume"


class Position(BaseModel):
    """Where a pre-training is, and what must be the same for it to go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    standing: Standing
    seed: int
    environment: Environment
    recipe_sha256: str
    inputs_sha256: str
    scaler: dict[str, int | float] | None


@dataclass(frozen=True)
class State:
    """What `save_state` wrote."""

    folder: RunFolder
    position: Position
    tensors: dict[str, Tensor]

    def pinned(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the seed, threads and precision that the pre-training began with."""
        began = self.position.environment
        same = {"seed": self.position.seed, "threads": began.threads, "precision": began.precision}
        return recipe.model_copy(update=same)

    def restore(self, run: Pretrained, optimiser: torch.optim.Optimizer) -> None:
        """Put the pre-training where it was. CannotResume when its texts, vocabulary or device are others."""
        at = self.position
        if at.inputs_sha256 != inputs_sha256(run):
            reason = (
                f"{self.folder.path / STATE}: the texts, the encoder or its vocabulary are not those that it began with"
            )
            raise CannotResume(reason, advice=f"put them back, or {ADVICE}")
        if at.environment.device != (now := environment_of(run).device):
            raise CannotResume(
                f"{self.folder.path / STATE}: it began on {at.environment.device}, this machine has {now}",
                advice=ADVICE,
            )
        restore_parameters(self.tensors, run.network.named_parameters(), optimiser)
        if at.scaler is not None and run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(at.scaler)
        run.standing = at.standing.model_copy(deep=True)


def save_state(run: Pretrained, optimiser: torch.optim.Optimizer) -> None:
    """Write the state after the step that was taken last."""
    position = Position(
        standing=run.standing,
        seed=run.recipe.seed,
        environment=environment_of(run),
        recipe_sha256=run.folder.recipe_sha256,
        inputs_sha256=inputs_sha256(run),
        scaler=run.accelerator.scaler.state_dict() if run.accelerator.scaler is not None else None,
    )
    write_state_file(run.folder.path / STATE, position.model_dump(), run.network.named_parameters(), optimiser)


def read_state(folder: RunFolder, recipe_sha256: str) -> State | None:
    """Return the last state, None where there is none. CannotResume for another recipe's."""
    path = folder.path / STATE
    if not path.is_file():
        return None
    try:
        found, tensors = read_state_file(path)
        position = Position.model_validate(found)
    except (*UNREADABLE, ValidationError):
        raise CannotResume(f"{path}: not a state of this version", advice=ADVICE) from None
    if position.recipe_sha256 != recipe_sha256:
        raise CannotResume(f"{path}: begun with another recipe", advice=ADVICE)
    return State(folder, position, tensors)


def environment_of(run: Pretrained) -> Environment:
    """Return what computes now."""
    return describe_environment(run.device, precision=run.precision, processes=1)


def inputs_sha256(run: Pretrained) -> str:
    """Return a digest of what is read: the texts, their order, the encoder and its vocabulary."""
    if run.inputs_sha256 is None:
        material = run.material
        sums = sha256(material.checkpoint.spec.model_dump_json().encode())
        sums.update(material.checkpoint.tokenizer.to_str().encode())
        for text in material.texts():
            sums.update(json.dumps(text).encode())
        for row in material.labelled:
            sums.update(json.dumps([row.text, row.task, row.label]).encode())
        sums.update(json.dumps(run.plan).encode())
        run.inputs_sha256 = sums.hexdigest()
    return run.inputs_sha256
