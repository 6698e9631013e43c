"""Answers turns from knowledge: the entries of a file, and their vectors for each version that serves."""

from collections.abc import Sequence
from typing import NamedTuple, Self
from weakref import ReferenceType, ref

from ...runtime.agent.handler import LoadedModel
from ...runtime.errors import SetupError
from ...runtime.model.vectors import Embedded
from ...schemas.dialogue import REPLY_CHARACTERS
from ...schemas.manifest import ModelManifest
from .knowledge.entries import Entry, read_knowledge
from .knowledge.index import KnowledgeIndex, build_index
from .options import DialogueOptions
from .policy.policy import Policy
from .policy.sayings import fill


class _Prepared(NamedTuple):
    model: "ReferenceType[LoadedModel]"
    built: KnowledgeIndex


class KnowledgeAnswers:
    """Finds answers to turns. `prepare` is called in threads, all others on the event loop."""

    def __init__(self, entries: Sequence[Entry], threshold: float) -> None:
        self._entries, self._threshold = entries, threshold
        self._prepared: dict[tuple[str, int], _Prepared] = {}
        """By name and version of each model that is loaded: a version that serves keeps its index. Replaced, never changed."""

    @classmethod
    def from_options(cls, options: DialogueOptions, policy: Policy) -> Self | None:
        """Return the answers of the options' file; None without one. Raises SetupError in one line."""
        if options.knowledge is None:
            return None
        entries = read_knowledge(options.knowledge)
        greeting = fill(policy.greeting.template, policy.constants) if policy.greeting else ""
        for entry in entries:
            if len(greeting) + 1 + len(entry.answer or "") > REPLY_CHARACTERS:
                raise SetupError(
                    f"{options.knowledge}: the answer to {entry.question[:60]!r} is longer than a reply with the greeting "
                    f"may be, {REPLY_CHARACTERS} characters: shorten it"
                )
        return cls(entries, options.knowledge_threshold)

    def check(self, manifest: ModelManifest) -> None:
        """Raise SetupError for a model that gives no vectors of texts."""
        if not manifest.pooled:
            raise SetupError(
                f"knowledge needs vectors of texts, and model {manifest.name} {manifest.version} gives none: train it with "
                "`pooled: true`, or export its run with --pooled"
            )

    def prepare(self, model: LoadedModel) -> None:
        """Compute the vectors of all questions by a model, before it serves. Blocks as long as so many forward passes."""
        key = model.manifest.name, model.manifest.version
        known = self._prepared.get(key)
        index = known.built if known else build_index(self._entries, model)
        loaded = {name: each for name, each in self._prepared.items() if each.model() is not None}
        self._prepared = loaded | {key: _Prepared(ref(model), index)}

    def find(self, embedded: Embedded, at: int) -> str | None:
        """Return the answer to a text with this vector at a time, ms since 1970; None where no question is near enough."""
        found = self._prepared[embedded.model].built.search(embedded.vector, at)
        # Written so that a similarity that is no number answers nothing.
        return found.entry.answer if found is not None and found.score >= self._threshold else None
