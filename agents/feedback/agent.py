"""Feedback: checks people's feedback on predictions and counts how often it agrees with them.

Nothing is published. Ingest reads the topic itself, with the same checks. Refused feedback becomes a dead letter, so
that its sender can be informed.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field

from ...runtime.agent.agent import Agent
from ...runtime.agent.discovery import default_agents
from ...runtime.agent.handler import Context, Handler, Predicts
from ...runtime.errors import RecordError
from ...runtime.settings.agent_options import Options
from ...runtime.settings.kafka import AgentName
from ...runtime.wire.feedback import check_form, known_labels, labels_of, new_labels, read_feedback
from ...runtime.wire.message import Publish, Record
from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.feedback import Feedback, Verdict
from ...schemas.manifest import ModelManifest
from .metrics import FeedbackMetrics

OTHER: Final = "other"
NEAR_VERSIONS: Final = 16
"""Distance in versions from the serving one up to which a version has its own series: feedback must not add series
without limit."""
REMEMBERED: Final = 10_000
"""Number of feedback ids that a process remembers as counted. Feedback repeated later than that is counted again."""


class RecentIds:
    """The last `size` different ids. Pure."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def add(self, name: str) -> None:
        self._ids[name] = None
        self._ids.move_to_end(name)
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)


class LiveAccuracy:
    """The share of agreeing verdicts among the last `window`, for each task and version. Pure."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._seen: dict[tuple[str, str], deque[bool]] = {}
        self._agreed: dict[tuple[str, str], int] = {}

    def add(self, task: str, version: str, agrees: bool) -> float:
        """Count a verdict and return the share."""
        key = task, version
        seen = self._seen.setdefault(key, deque())
        agreed = self._agreed.get(key, 0) + agrees
        seen.append(agrees)
        if len(seen) > self._window:
            agreed -= seen.popleft()
        self._agreed[key] = agreed
        return agreed / len(seen)


class FeedbackOptions(Options):
    """Which feedback the agent accepts."""

    agents: Annotated[list[AgentName], Field(min_length=1)] | None = None
    """Agents whose predictions may be judged; default: those in the same process. Set it where this agent runs alone."""
    window: Annotated[int, Field(gt=0)] = 500
    """Number of latest verdicts for the live accuracy."""


class FeedbackAgent(Handler):
    """Accepts feedback on predictions of the agents in its options, else of those in the same process, else (when it runs
    alone) of the default agents.
    """

    name = "feedback"
    topics = ("murmura.feedback",)
    options_model = FeedbackOptions

    def __init__(self) -> None:
        self.options = FeedbackOptions()
        self._agents: frozenset[str] = frozenset()
        self._local_agents: dict[str, Agent] = {}
        self._metrics: FeedbackMetrics | None = None
        self._live = LiveAccuracy(self.options.window)
        self._counted = RecentIds()
        self._known: tuple[ModelManifest | None, dict[str, frozenset[str]]] = (None, {})

    def started(self, context: Context) -> None:
        options: FeedbackOptions = self.options
        others = [name for name in context.agents if name != self.name]
        self._agents = frozenset(options.agents or others or default_agents())
        self._local_agents = {agent.name: agent for agent in context.predicting}
        self._metrics = FeedbackMetrics(context.metrics)
        self._live = LiveAccuracy(options.window)

    async def handle(self, record: Record, engine: Predicts) -> Iterable[Publish]:
        feedback = read_feedback(record.value)
        manifest = _find_manifest(feedback, engine)
        if feedback.id in self._counted:  # delivered or sent again: only the first counts
            self._counted.add(feedback.id)
            return ()
        if feedback.verdict is Verdict.WITHDRAWN:
            self._count_withdrawn(feedback, manifest)
        else:
            new = self._check(feedback, manifest)
            self._count(feedback, manifest, new)
        self._counted.add(feedback.id)
        return ()

    def _check(self, feedback: Feedback, manifest: ModelManifest) -> int:
        """Return the number of labels that are new to their open task. Raises RecordError for invalid feedback."""
        if feedback.agent not in self._agents:
            raise RecordError(
                Reason.INVALID, f"no such agent: feedback is accepted for {', '.join(sorted(self._agents))}"
            )
        known = self._labels(manifest)
        if feedback.task not in known:
            raise RecordError(Reason.UNKNOWN_TASK, f"model {manifest.name} has no such task: {', '.join(known)}")
        spec = manifest.task(feedback.task)
        agent = self._local_agents.get(feedback.agent)
        if agent is not None and not agent.may_answer(spec):
            raise RecordError(Reason.INVALID, f"agent {agent.name} never answers task {spec.name}")
        check_form(feedback, spec)
        return new_labels(labels_of(feedback), spec, known[spec.name])

    def _labels(self, manifest: ModelManifest) -> dict[str, frozenset[str]]:
        if self._known[0] is not manifest:
            self._known = manifest, {spec.name: known_labels(spec) for spec in manifest.tasks}
        return self._known[1]

    def _count(self, feedback: Feedback, manifest: ModelManifest, new: int) -> None:
        if self._metrics is None:
            return
        version = _version(feedback, manifest)
        self._metrics.count_verdict(feedback.agent, feedback.task, version, feedback.verdict)
        if new:
            self._metrics.count_new_labels(feedback.task, new)
        agrees = feedback.verdict.agrees
        if agrees is not None and version != OTHER:
            self._metrics.set_live_accuracy(feedback.task, version, self._live.add(feedback.task, version, agrees))

    def _count_withdrawn(self, feedback: Feedback, manifest: ModelManifest) -> None:
        """Count a withdrawal. It is never refused, even with an unknown agent or task."""
        if self._metrics is not None:
            agent = feedback.agent if feedback.agent in self._agents else OTHER
            task = feedback.task if feedback.task in self._labels(manifest) else OTHER
            self._metrics.count_verdict(agent, task, _version(feedback, manifest), feedback.verdict)


def _find_manifest(feedback: Feedback, engine: Predicts) -> ModelManifest:
    """Return the manifest of the version that answered, if it is a candidate, otherwise that of the serving version."""
    candidate = engine.on_side("candidate").model.manifest
    is_candidates = feedback.model is not None and feedback.model.version == candidate.version
    return candidate if is_candidates else engine.model.manifest


def _version(feedback: Feedback, manifest: ModelManifest) -> str:
    """Return the metric label of the version that answered: `other` if unknown, of another model, or too far away."""
    model = feedback.model
    if model is None or model.name != manifest.name or abs(model.version - manifest.version) > NEAR_VERSIONS:
        return OTHER
    return str(model.version)
