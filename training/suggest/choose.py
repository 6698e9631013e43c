"""Chooses the most useful texts of a stream; memory is bounded by how many are wanted, and for k-centre by its sample."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import SetupError
from ...runtime.model.inputs import Input
from ...runtime.model.model import Model
from ...schemas.manifest import TaskSpec
from ..data.near_texts import near_form
from ..evaluate.recent_logits import Asked, ask
from .judge import Judge
from .k_centre import choose_centres
from .pool import Candidate, Pool, leave_out_alike
from .strategy import Strategy, Tokens

if TYPE_CHECKING:
    from .states import DropoutPasses

Array = NDArray[Any]
CHUNK: Final = 256
"""Texts that are asked together."""
_SPARE: Final = 4
Offered = tuple[Input, Any]
"""A text, and what it was read from."""


@dataclass(frozen=True)
class Choice:
    """What is chosen of the texts that were `seen`: those that were `known` or `repeated`, and `alike` ones, near duplicates of one
    that is chosen, are left out.
    """

    chosen: list[Candidate]
    seen: int
    known: int
    repeated: int
    alike: int
    note: str = ""

    @property
    def left_out(self) -> str:
        """What is left out, in words; empty where nothing is."""
        counts = {"known": self.known, "repeated": self.repeated, "nearly the same as a chosen one": self.alike}
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


@dataclass(frozen=True)
class Wanted:
    """How `count` texts are to be chosen. `sample`: texts that k-centre compares at most."""

    spec: TaskSpec
    strategy: Strategy
    count: int
    tokens: Tokens = Tokens.LEAST
    sample: int = 20_000
    seed: int = 0


def choose_texts(
    offered: Iterable[Offered],
    wanted: Wanted,
    model: Model,
    passes: "DropoutPasses | None" = None,
    *,
    known: Container[bytes] = frozenset(),
    covered: Sequence[Input] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> Choice:
    """Return the most useful of the texts; see `Chooser`."""
    chooser = Chooser(wanted, model, passes, known=known, covered=covered)
    for part in _chunks(offered):
        chooser.offer(part)
        progress(len(part))
    return chooser.finish()


class Chooser:
    """Takes texts part by part, and returns the most useful of them, each with the model's answer.

    `known`: near ids of texts that have a label. `passes` answers with dropout and embeds; `covered` are texts with labels, which
    k-centre begins from.
    """

    def __init__(
        self,
        wanted: Wanted,
        model: Model,
        passes: "DropoutPasses | None" = None,
        *,
        known: Container[bytes] = frozenset(),
        covered: Sequence[Input] = (),
    ) -> None:
        self._wanted, self._model, self._passes, self._covered = wanted, model, passes, covered
        self._usefulness = _make_usefulness(wanted, model, passes)
        self._is_sampled = wanted.strategy is Strategy.K_CENTRE
        self._pool = Pool(-(-wanted.sample // _SPARE) if self._is_sampled else wanted.count, known)

    def offer(self, texts: Sequence[Offered]) -> None:
        """Judge some texts."""
        for part in _chunks(texts):
            for (given, row), value in zip(part, self._usefulness([given for given, _ in part]), strict=True):
                self._pool.offer(Candidate(given, row, value))

    def finish(self) -> Choice:
        """Return the choice."""
        pool, wanted = self._pool, self._wanted
        if not self._is_sampled:
            chosen, alike = pool.choose()
            return self._answer(chosen, alike)
        sample = pool.ordered()[: wanted.sample]
        chosen, alike = _choose_centres(sample, wanted, self._model, self._passes, self._covered)
        drawn = f"compared {len(sample):,} texts, drawn at random of {pool.different:,}"
        return self._answer(chosen, alike, drawn if len(sample) < pool.different else "")

    def _answer(self, chosen: list[Candidate], alike: int, note: str = "") -> Choice:
        pool, spec = self._pool, self._wanted.spec
        outputs = self._model.predict([each.given for each in chosen], [spec.name])
        answered = [replace(each, answer=output[spec.name]) for each, output in zip(chosen, outputs, strict=True)]
        return Choice(answered, pool.seen, pool.known, pool.repeated, alike, note)


def _chunks(offered: Iterable[Offered]) -> Iterator[list[Offered]]:
    stream = iter(offered)
    while part := list(islice(stream, CHUNK)):
        yield part


def _make_usefulness(
    wanted: Wanted, model: Model, passes: "DropoutPasses | None"
) -> Callable[[Sequence[Input]], list[float]]:
    judge, task = Judge(wanted.spec, wanted.strategy, wanted.tokens), wanted.spec.name
    if wanted.strategy in {Strategy.RANDOM, Strategy.K_CENTRE}:
        return lambda texts: [_draw(each, wanted.seed) for each in texts]
    if wanted.strategy is Strategy.DISAGREEMENT:
        if passes is None:
            raise SetupError(
                "disagreement needs the network with dropout: name the run folder of the training by --run"
            )
        return lambda texts: [
            judge.judge(logits, _specials(asked) if judge.by_token else np.zeros(0))
            for logits, asked in zip(passes.ask(texts), _asked(model, texts, judge), strict=True)
        ]
    return lambda texts: [judge.judge(asked.logits[task], _specials(asked)) for asked in ask(model, texts)]


def _asked(model: Model, texts: Sequence[Input], judge: Judge) -> Sequence[Any]:
    """Return the model's tokens, where the special ones have to be known."""
    return ask(model, texts) if judge.by_token else [None] * len(texts)


def _specials(asked: Asked) -> Array:
    return np.array(asked.encoded.encoding.special_tokens_mask)


def _draw(given: Input, seed: int) -> float:
    """Return a number from 0 to 1 that is the same for texts that are one."""
    digest = blake2b(near_form(given), digest_size=8, key=seed.to_bytes(8, "big", signed=True)).digest()
    return int.from_bytes(digest, "big") / 2**64


def _choose_centres(
    sample: Sequence[Candidate],
    wanted: Wanted,
    model: Model,
    passes: "DropoutPasses | None",
    covered: Sequence[Input],
) -> tuple[list[Candidate], int]:
    if not sample:
        return [], 0
    vectors = _embed([each.given for each in sample], model, passes)
    begins = _embed(covered, model, passes) if covered else None
    rows, distances = choose_centres(vectors, _SPARE * wanted.count, begins)
    found = [replace(sample[row], usefulness=distance) for row, distance in zip(rows, distances, strict=True)]
    return leave_out_alike(found, wanted.count)


def _embed(texts: Sequence[Input], model: Model, passes: "DropoutPasses | None") -> Array:
    if passes is not None:
        return passes.embed(texts)
    if not model.manifest.pooled:
        raise SetupError("k-centre compares vectors of texts: name the run folder by --run, or export with --pooled")
    return model.embed([each if isinstance(each, str) else f"{each.text}\n{each.second}" for each in texts])
