"""Reads a policy's file, and checks it against the topics of the agent and the tasks of a model."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ....runtime.errors import SetupError
from ....runtime.model.kinds.forms import AnswerForm
from ....runtime.model.kinds.registry import kind_of
from ....runtime.settings.yaml_file import YamlFile
from ....runtime.spelling import suggest
from ....runtime.wire.feedback import known_labels
from ....schemas.manifest import TaskSpec
from .phrases import FOLDER
from .policy import Policy, find_problems

PolicyFile = YamlFile[Policy]


def load_policy(path: Path) -> PolicyFile:
    """Read and check a policy. Raises SetupError with file, line, key and the expected value."""
    file = YamlFile(path, Policy, "policy", requires="intents", context={FOLDER: path.parent})
    for place, problem in find_problems(file.value):
        raise file.refusal(place, problem)
    return file


def check_topics(file: PolicyFile, own: Mapping[str, str]) -> None:
    """Raise SetupError if an action publishes to one of the agent's own topics. `own`: topic to description."""
    for name, rule in file.value.intents.items():
        for action in rule.action:
            if action.topic in own:
                problem = f"{action.topic} is the agent's own topic of {own[action.topic]}; an action needs another"
                raise file.refusal(("intents", name, "action"), problem)


def check_intents(file: PolicyFile, names: Iterable[str], setting: str, or_else: str = "") -> None:
    """Raise SetupError if a setting names an intent that the policy does not have: it would change nothing. `or_else`: what it may be, too."""
    known = file.value.intents
    if unknown := [name for name in names if name not in known]:
        raise SetupError(
            f"{setting}: policy {file.path} has no intent {unknown[0]!r}; expected {or_else}some of {', '.join(known)}"
            + suggest(unknown[0], known, most=3)
        )


def check_against_model(file: PolicyFile, tasks: Iterable[TaskSpec], model: str) -> None:
    """Raise SetupError if the policy names a task, an intent or an entity that the model does not have."""
    policy, specs = file.value, {task.name: task for task in tasks}
    forms = [("intent_task", policy.intent_task, AnswerForm.LABEL, "a label")]
    if policy.entity_task is not None:
        forms.append(("entity_task", policy.entity_task, AnswerForm.SPANS, "spans"))
    if policy.filter is not None:
        forms.append(("filter", policy.filter, AnswerForm.LABELS, "labels"))
    for key, name, form, answer in forms:
        fitting = [task.name for task in specs.values() if kind_of(task).form is form]
        if name not in fitting:
            known = ", ".join(fitting) or "none"
            raise file.refusal(
                (key,), f"model {model} has no task {name} that is answered with {answer}; it has {known}"
            )
    _check_labels(file, specs)
    filtered = [*policy.stop_words, *(specs[policy.filter].labels if policy.filter else ())]
    if unknown := [label for label in policy.handover.filtered if label not in filtered]:
        problem = (
            f"neither `filter` nor `stop_words` has a label {unknown[0]}; they have {', '.join(filtered) or 'none'}"
        )
        raise file.refusal(("handover", "filtered"), problem)
    if policy.generates:
        _check_replies(file, specs, model)


def _check_labels(file: PolicyFile, specs: Mapping[str, TaskSpec]) -> None:
    policy = file.value
    intents = specs[policy.intent_task].labels
    entities = known_labels(specs[policy.entity_task]) if policy.entity_task else frozenset()
    if policy.people is not None and policy.people not in entities:
        known = ", ".join(sorted(entities))
        raise file.refusal(
            ("people",), f"task {policy.entity_task} has no entity {policy.people}; it has {known or 'none'}"
        )
    for name, rule in policy.intents.items():
        if name not in intents:
            raise file.refusal(("intents", name), f"not a label of task {policy.intent_task}")
        for slot in rule.needs:
            if (label := policy.label_of(slot)) not in entities:
                known = ", ".join(sorted(entities))
                raise file.refusal(
                    ("intents", name, "needs", slot),
                    f"task {policy.entity_task} has no entity {label}; it has {known} (`slots` maps slots to entities)",
                )


def _check_replies(file: PolicyFile, specs: Mapping[str, TaskSpec], model: str) -> None:
    """Raise SetupError if the model cannot word the replies with `generate`."""
    policy = file.value
    generation = specs[policy.reply_task].generation if policy.reply_task in specs else None
    known = ", ".join(name for name, task in specs.items() if task.generation is not None) or "none"
    for place, saying, _ in policy.sayings():
        if not saying.generate:
            continue
        if generation is None:
            problem = f"`generate` needs a task that words replies, and model {model} has no such task {policy.reply_task}; it has {known}"
            raise file.refusal(place, problem)
        if not generation.acts:
            raise file.refusal(
                place, f"`generate` needs a task that reads acts, and {policy.reply_task} of model {model} reads none"
            )
        if lacking := [slot for slot in saying.slots if slot not in generation.slots]:
            problem = f"task {policy.reply_task} of model {model} knows no slot {lacking[0]}; it knows {', '.join(generation.slots) or 'none'}"
            raise file.refusal(place, problem)
