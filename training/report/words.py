"""The template of a verbaliser, and the word of each label. Pure."""

from .made import Made
from .part import Group, Part, Table

_NOTE = (
    "The template is read before every text, as a part of the graph: who asks the model sends the text alone. The head began as these "
    "words."
)


def describe_words(made: Made) -> Part | None:
    """Return the templates and words; None without a verbaliser."""
    groups = []
    for spec in made.manifest.tasks:
        task = made.recipe.tasks.get(spec.name) if made.recipe is not None else None
        if task is None or task.verbaliser is None:
            continue
        words = [[label, task.verbaliser.words[label]] for label in spec.labels if label in task.verbaliser.words]
        facts = [("task", spec.name), ("template", task.verbaliser.template.strip())]
        if (tokens := made.manifest.encoder.virtual_tokens) is not None:
            facts.append(("tokens of the template", str(tokens)))
        groups.append(Group(facts=facts, table=Table(f"Words of {spec.name}", ["label", "word"], words, words=2)))
    return Part("words", "Words for labels", groups, [_NOTE]) if groups else None
