"""Words the replies of a policy with the model, each within its deadline and below the net of its template."""

import asyncio
from collections.abc import Callable, Sequence

from ...runtime.agent.handler import Predicts
from ...runtime.errors import Late
from ...runtime.generation.facts import is_fact_piece
from ...runtime.generation.input_format import mask_turns
from ...runtime.model.generated import Generated
from ...runtime.observe.logs import get_logger
from ...schemas.acts import Utterance
from ...schemas.dialogue import ConversationState, Stopped, Wording
from ...schemas.dialogue import WordingReason as Reason
from ...schemas.manifest import ModelManifest
from .failures import Part, PartFailures
from .policy.policy import Policy, least_reply_score
from .turn.draft import Brief
from .turn.harm import Harm, find_harm
from .turn.wording import Net, Worded, choose_wording, make_net

log = get_logger(__name__)


class ReplyWriter:
    """Words briefs, with models that the policy was checked against."""

    def __init__(self, policy: Policy, may_generate: Callable[[str | None], bool], failures: PartFailures) -> None:
        """`may_generate` returns whether replies about an intent may be generated now."""
        self._policy, self._may_generate, self._failures = policy, may_generate, failures
        self._nets: dict[tuple[str, int], tuple[ModelManifest, Net]] = {}
        """By name and version of the last two models: a candidate may answer beside the current version."""
        self._net = make_net(policy, 0.0)

    async def word(
        self, brief: Brief, state: ConversationState, text: str, engine: Predicts, deadline: float
    ) -> tuple[Worded, Stopped | None]:
        """Return the reply to a turn, worded by the model or by its template, and what of the model's was stopped.

        `state` is that after the turn, `deadline` a time of the event loop's clock in seconds. Whatever fails means template.
        Raises Closed when the process stops.
        """
        worded = choose_wording(Reason.FAILED, brief, self._net)
        with self._failures.contained(Part.REPLY):
            worded = await self._ask(brief, state, text, engine, deadline)
        if worded.wording is not Wording.GENERATED:
            return worded, None
        harm: Harm | Reason | None = Reason.FAILED
        with self._failures.contained(Part.FILTER):
            harm = await self._filter(worded, engine, deadline)
        if harm is None:
            return worded, None
        reason, stopped = (harm, None) if isinstance(harm, Reason) else (harm.reason, harm.stopped)
        return choose_wording(reason, brief, self._net), stopped

    async def _ask(
        self, brief: Brief, state: ConversationState, text: str, engine: Predicts, deadline: float
    ) -> Worded:
        """Return the model's words, or the template where they may not be sent."""
        asked = engine.model.manifest
        net = self._find_net(asked)
        if not self._may_generate(state.intent):
            return choose_wording(Reason.SWITCHED_OFF, brief, net)
        turns = self._mask_turns(_list_turns(state, text), state, asked)
        try:
            found = await self._generate(brief, turns, engine, deadline)
        except Late:
            return choose_wording(Reason.LATE, brief, net)
        worded = choose_wording(found, brief, net)
        other = engine.model.manifest
        if found.model != (asked.name, asked.version):  # a candidate did not answer, the serving version did
            other = engine.on_side("current").model.manifest
        if worded.wording is Wording.GENERATED and other is not asked:
            # Either version may have worded it, so it passes both nets.
            worded = choose_wording(found, brief, self._find_net(other))
        return worded

    def _find_net(self, manifest: ModelManifest) -> Net:
        key = manifest.name, manifest.version
        made_for, net = self._nets.get(key, (None, self._net))
        if manifest is not made_for:
            task = manifest.task(self._policy.reply_task)
            least = least_reply_score(self._policy, task)
            if not least and self._policy.min_reply_score is None:
                log.warning(
                    "the model has no score below which a reply is not sent; set min_reply_score", task=task.name
                )
            net = make_net(self._policy, least, task.labels)
            others = [(other, made) for other, made in self._nets.items() if other != key]
            self._nets = dict([*others[-1:], (key, (manifest, net))])
        return net

    def _mask_turns(
        self, turns: list[Utterance], state: ConversationState, manifest: ModelManifest
    ) -> Sequence[Utterance]:
        spec = manifest.task(self._policy.reply_task).generation
        values = {slot: [value] for slot, value in state.slots.items()}
        return mask_turns(turns, values, spec) if spec is not None else turns

    async def _generate(self, brief: Brief, turns: Sequence[Utterance], engine: Predicts, deadline: float) -> Generated:
        return await engine.generate(
            turns,
            brief.acts,
            self._policy.reply_task,
            slots=brief.values.keys(),
            is_forbidden=is_fact_piece,
            deadline=deadline,
        )

    async def _filter(self, worded: Worded, engine: Predicts, deadline: float) -> Harm | Reason | None:
        """Return what a reply is stopped for; LATE where the filter has not answered in time, TOO_LONG where it cannot read
        all words of the model.
        """
        task = self._policy.filter
        if task is None:
            return find_harm(worded.text, {}, self._policy)
        try:
            async with asyncio.timeout_at(deadline) as limit:
                # Where the policy's words leave no room, those of the model are read alone.
                for text in dict.fromkeys((worded.text, worded.words)):
                    prediction = await engine.predict(text, (task,))
                    harm = find_harm(text, prediction, self._policy)
                    if harm is not None or not prediction.truncated:
                        return harm
        except TimeoutError:
            if not limit.expired():
                raise
            return Reason.LATE
        return Reason.TOO_LONG


def _list_turns(state: ConversationState, text: str) -> list[Utterance]:
    """Return the turns before the reply, the newest last."""
    turns: list[Utterance] = []
    for exchange in state.turns[:-1]:
        turns += [Utterance(role="user", text=exchange.text), Utterance(role="agent", text=exchange.reply)]
    return [*turns, Utterance(role="user", text=text)]
