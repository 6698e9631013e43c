"""Compares the answers of two versions to a request. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...schemas.manifest import ModelManifest
from ..model.kinds.registry import find_kind, kind_of

Output = Mapping[str, Any]


class Compared(NamedTuple):
    """Both answers to a request, by task, as `schemas.shadow` has them."""

    tasks: dict[str, dict[str, Any]]

    @property
    def agrees(self) -> bool:
        """Whether all tasks agree."""
        return all(task["agrees"] for task in self.tasks.values())


def comparable_tasks(current: ModelManifest, candidate: ModelManifest) -> frozenset[str]:
    """Return the tasks that both versions have and answer in one pass from the same input. Replies are none of them."""
    others = {task.name: task for task in candidate.tasks}
    return frozenset(
        task.name
        for task in current.tasks
        if task.name in others and not kind_of(task).generates and kind_of(task) is kind_of(others[task.name])
    )


def shares_tokens(current: ModelManifest, candidate: ModelManifest) -> bool:
    """Return whether what one version tokenised is what the other one would: same tokenizer, same limit, and tasks that read
    alike.
    """
    return _describe_tokens(current) == _describe_tokens(candidate)


def _describe_tokens(manifest: ModelManifest) -> tuple[object, ...]:
    digests = frozenset(file.sha256 for file in manifest.files if file.role == "tokenizer")
    reading = frozenset((kind_of(task).reads, kind_of(task).generates) for task in manifest.tasks)
    return digests, manifest.limits.max_tokens, reading


def compare(current: Mapping[str, Output], candidate: Mapping[str, Output]) -> Compared:
    """Compare outputs by task, of the tasks that both have. Answers agree without scores; of withheld ones the reasons do."""
    tasks = {}
    for task, output in candidate.items():
        before, after = describe_answer(current[task]), describe_answer(output)
        agrees = (before["answer"], before["reason"]) == (after["answer"], after["reason"])
        tasks[task] = {"agrees": agrees, "current": before, "candidate": after}
    return Compared(tasks)


def describe_answer(output: Output) -> dict[str, Any]:
    """Return an answer with labels and scores and without parts of the text. Raises as the kind does for another shape."""
    kind = find_kind(output)
    if kind is None:
        raise ValueError("no such kind of task is installed")
    labels = [{"label": label, "score": float(score)} for label, score in kind.list_answers(output)]
    return {"answer": kind.name_answer(output), "labels": labels, "reason": output.get("reason")}
