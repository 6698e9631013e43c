"""The network of a pre-training, and what one works with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from accelerate import Accelerator
from pydantic import BaseModel
from torch import Tensor, nn

from ..model.padding import pad
from ..recipe.keys.pretraining import Pretraining
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import RunFolder
from .material import Material
from .objectives.objective import Ids, Objective


class Standing(BaseModel):
    """How far a pre-training is."""

    step: int = 0
    first: dict[str, float] = {}
    """Mean loss by objective over the first steps: what `smoothed` began from."""
    smoothed: dict[str, float] = {}
    """The smoothed loss of each objective."""
    cpu_seconds: float = 0.0


class Network(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The encoder and what the objectives have beside it."""

    def __init__(self, encoder: nn.Module, objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.encoder, self.objectives = encoder, nn.ModuleList(objectives)

    def encode(self, ids: Sequence[Ids], device: str) -> tuple[Tensor, Tensor]:
        """Return the states [B, S, H] and the mask [B, S]."""
        padded, mask = (each.to(device) for each in pad(ids))
        return self.encoder(input_ids=padded, attention_mask=mask).last_hidden_state, mask

    @property
    def heads(self) -> Iterator[nn.Parameter]:
        """The parameters that the encoder does not have."""
        own = {id(parameter) for parameter in self.encoder.parameters()}
        return (parameter for parameter in self.objectives.parameters() if id(parameter) not in own)


@dataclass
class Pretrained:
    """What one pre-training works with, and its standing, which alone changes on the way."""

    recipe: Recipe
    settings: Pretraining
    material: Material
    network: Network
    plan: list[list[list[int]]]
    """By step and objective: the rows that are read."""
    folder: RunFolder
    accelerator: Accelerator
    precision: str
    counts: dict[str, float]
    """Of the texts: documents, texts, tokens, cut, unknown."""
    standing: Standing = field(default_factory=Standing)
    inputs_sha256: str | None = None

    @property
    def device(self) -> str:
        return str(self.accelerator.device.type)
