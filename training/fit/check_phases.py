"""Refuses phases that the tasks of a recipe cannot have, and trainings with too few steps; names weights that so few cannot set."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ...runtime.model.kinds.registry import KINDS
from ...runtime.settings.yaml_file import Place
from ...schemas.manifest import EncoderSpec
from ..compute.phase_rows import count_phase, count_run_rows
from ..model.methods.refuse import refuse_steps
from ..recipe.keys.optimiser import Freeze
from ..recipe.phase_recipe import is_self_training, leaves_encoder, takes_steps_of_budget, weighs_tasks
from ..recipe.recipe import Recipe


def refuse_phases(recipe: Recipe) -> None:
    """Raise SetupError for phases that a recipe's tasks cannot have."""
    for at, phase in enumerate(recipe.phases):
        place = ("phases", at)
        if unknown := [name for name in phase.tasks or () if name not in recipe.tasks]:
            raise recipe.refusal((*place, "tasks"), f"no task {unknown[0]}; expected some of {', '.join(recipe.tasks)}")
        if twice := [name for name, count in Counter(phase.tasks).items() if count > 1]:
            raise recipe.refusal((*place, "tasks"), f"{twice[0]} stands twice in phase {phase.name}")
        if phase.name in [other.name for other in recipe.phases[:at]]:
            raise recipe.refusal((*place, "name"), f"{phase.name} stands twice")
        others = [name for name in recipe.tasks if name not in (phase.tasks or recipe.tasks)]
        generating = [name for name in others if KINDS.get(recipe.tasks[name].kind).generates]
        if generating and phase.held_rows and not leaves_encoder(recipe, phase):
            raise recipe.refusal(
                (*place, "tasks"),
                f"{generating[0]} writes replies, to which it cannot be held; add it, or `freeze: encoder`",
            )
        if recipe.encoder.frozen and phase.freeze is not None:
            raise recipe.refusal((*place, "freeze"), "has no effect on an encoder that is frozen already")
    if recipe.freeze is not None and recipe.encoder.frozen:
        raise recipe.refusal(("freeze",), "has no effect on an encoder that is frozen already")
    if recipe.phases and recipe.budget.steps is not None:
        _refuse_steps_of_budget(recipe)


def _refuse_steps_of_budget(recipe: Recipe) -> None:
    """Raise SetupError unless one phase takes the steps of the budget."""
    names = [phase.name for phase in recipe.phases if takes_steps_of_budget(recipe, phase)]
    if not names:
        raise recipe.refusal(("budget", "steps"), "has no effect: every phase has its own `steps` or `epochs`")
    if len(names) > 1:
        found = f"{recipe.budget.steps} are the steps of one phase, but {', '.join(names)} have neither `steps` nor `epochs`"
        raise recipe.refusal(("budget", "steps"), f"{found}; set one of them in each, or in all but one")


def refuse_layers(recipe: Recipe, encoder: EncoderSpec) -> None:
    """Raise SetupError where more layers are frozen than an encoder has."""
    asked: list[tuple[Place, Freeze | None]] = [(("freeze",), recipe.freeze)]
    asked += [(("phases", at, "freeze"), phase.freeze) for at, phase in enumerate(recipe.phases)]
    for place, freeze in asked:
        if freeze is not None and not freeze.all and freeze.layers > encoder.layers:
            found = f"{freeze.layers} layers, the encoder has {encoder.layers}; `encoder` freezes all of it"
            raise recipe.refusal(place, found)


def refuse_few_steps(recipe: Recipe, rows: Mapping[str, int]) -> None:
    """Raise SetupError for a phase without a step, or where there are fewer steps than the method around the encoder takes.
    `rows` are those that each task learns. The phase of self-training may have none.
    """
    if not recipe.phases:
        refuse_steps(recipe, len(count_run_rows(recipe, rows)))
    for at, phase in enumerate(recipe.phases):
        if not is_self_training(recipe, phase) and not count_phase(recipe, phase, rows).steps:
            raise recipe.refusal(("phases", at), f"{phase.name} trains nothing: its rows make no step; raise `epochs`")


def describe_late_weights(recipe: Recipe, rows: Mapping[str, int]) -> list[str]:
    """Return a line where `dwa` never acts: it compares a task's first two passes, in a training or anew in each phase. None
    elsewhere. `rows` are those that each task learns.
    """
    if recipe.weights.method != "dwa":
        return []
    counts = {"": count_run_rows(recipe, rows)} if not recipe.phases else {}
    weighed = [phase for phase in recipe.phases if weighs_tasks(recipe, phase)]
    counts |= {phase.name: count_phase(recipe, phase, rows).steps for phase in weighed}
    late = [name for name, steps in counts.items() if not _has_third_pass(steps, [*rows.values()])]
    if not late:
        return []
    where = f"phase{'' if len(late) == 1 else 's'} {', '.join(late)}: " if recipe.phases else ""
    effect = "`weights: dwa` has no effect, the tasks have static weights"
    return [f"note: {where}{effect}: it acts from the third pass over a task's rows on, and no task has one"]


def _has_third_pass(steps: Sequence[Sequence[int]], rows: Sequence[int]) -> bool:
    """Return whether a step comes behind the second pass over the rows of a task. A pass begins with a step."""
    for counts, own in zip(zip(*steps[:-1], strict=True), rows, strict=False):
        read = passes = 0
        for count in counts:
            read += count
            if read >= own:
                read, passes = 0, passes + 1
        if passes >= 2:
            return True
    return False
