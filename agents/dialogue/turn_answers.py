"""Answers a new turn: what the model reads in it, the step of the policy, knowledge, and the words of the reply."""

import asyncio
from functools import partial

from ...runtime.agent.handler import Predicts
from ...runtime.agent.prediction import Prediction
from ...runtime.errors import ModelFailed, RecordError
from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.dialogue import ConversationState
from ...schemas.manifest import ModelManifest
from .answering import KnowledgeAnswers
from .failures import Part, PartFailures
from .policy.phrases import is_one_part
from .policy.policy import Policy, least_score
from .replies import ReplyWriter
from .turn.changed_steps import put_wording
from .turn.people import read_alike
from .turn.step import ReceivedTurn, Step, goes_to_person, step


class TurnAnswers:
    """Answers turns with models that the policy was checked against."""

    def __init__(self, policy: Policy, knowledge: KnowledgeAnswers | None) -> None:
        self._policy, self._knowledge = policy, knowledge
        self._min_scores: dict[tuple[str, int], float] = {}
        """By name and version of each model that was checked."""
        self._failures = PartFailures()
        self._writer: ReplyWriter | None = None
        self._looking = asyncio.Lock()

    def check(self, manifest: ModelManifest) -> None:
        """Raise SetupError for a model that knowledge cannot be asked with."""
        task = manifest.task(self._policy.intent_task)
        self._min_scores[manifest.name, manifest.version] = least_score(self._policy, task)
        if self._knowledge is not None:
            self._knowledge.check(manifest)

    def begin(self, writer: ReplyWriter, failures: PartFailures) -> None:
        """Take what words replies, and what ends failures. Call it before `answer`."""
        self._writer, self._failures = writer, failures

    async def answer(
        self, state: ConversationState | None, turn: ReceivedTurn, before: int, engine: Predicts, deadline: float
    ) -> Step:
        """Return the result of a turn; `before` and `state` as in `step`, `deadline` of its words as in `ReplyWriter.word`.

        Raises RecordError for a turn that the model fails on, and what the engine raises.
        """
        assert self._writer is not None, "begin comes first"
        policy, now = self._policy, turn.source.timestamp
        vector = None
        answer = partial(step, state, turn, None, policy, now, min_score=0.0, before=before)
        if not goes_to_person(state, turn, policy, now):
            prediction = await self._predict(turn.text, engine)
            vector = prediction.vector
            phrases = await self._find_phrases(turn.text, engine)
            min_score = self._min_scores[prediction.model]
            answer = partial(
                step, state, turn, prediction, policy, now, min_score=min_score, before=before, phrases=phrases
            )
        result = answer()
        if self._knowledge is not None and vector is not None and not result.has_rule:
            with self._failures.contained(Part.KNOWLEDGE):
                result = answer(known=self._knowledge.find(vector, now))
        if result.brief is None:
            return result
        words = await self._writer.word(result.brief, result.state, turn.text, engine, deadline)
        return put_wording(result, turn, *words)

    async def _predict(self, text: str, engine: Predicts) -> Prediction:
        try:
            if self._knowledge is None:
                prediction = await engine.predict(text, self._policy.tasks)
            else:  # the vector costs nothing in the same pass, whether it is needed then or not
                prediction = await engine.predict(text, self._policy.tasks, with_vector=True)
        except ModelFailed as error:
            raise RecordError(Reason.MODEL_FAILED, f"the model failed: {type(error).__name__}") from error
        read = prediction
        with self._failures.contained(Part.PEOPLE):
            read = await read_alike(text, prediction, self._policy, engine)
        read.candidate_failed = prediction.candidate_failed
        return read

    async def _find_phrases(self, text: str, engine: Predicts) -> list[str]:
        """Return the labels of the phrases in a turn. A long one is looked at part by part, and one after the other, so that
        other turns go on in between.
        """
        phrases = self._policy.phrases
        if is_one_part(text):
            return phrases.find_labels(text)
        with engine.untimed():
            await self._looking.acquire()
        found: list[str] = []
        try:
            for labels in phrases.search(text):
                found += labels
                await asyncio.sleep(0)
        finally:
            self._looking.release()
        return phrases.order(found)
