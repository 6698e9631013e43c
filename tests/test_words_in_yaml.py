"""Where a file takes a text, `yes`, `no`, `on` and `off` need quotes: YAML reads them as true and false."""

import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from murmura.agents.dialogue.policy.policy import Policy
from murmura.agents.dialogue.policy.policy_file import load_policy
from murmura.runtime.errors import SetupError
from murmura.runtime.settings.settings import Settings
from murmura.runtime.settings.sources import load
from murmura.training.recipe.job import Job, read_job
from murmura.training.recipe.recipe import Recipe, load_recipe

FILES: dict[str, tuple[type[BaseModel], Callable[[Path], Any]]] = {
    "recipe": (Recipe, load_recipe),
    "job": (Job, read_job),
    "policy": (Policy, load_policy),
    "settings": (Settings, lambda path: load(path, environment=False)),
}
WORD = "WORD"


def kinds_of(annotation: Any) -> set[str]:
    """Return which of `text`, `name` (of a few), `choice` and `number` an annotation takes, without a list or keys around it."""
    if get_origin(annotation) in {Annotated, typing.Union, types.UnionType}:
        parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
        return set().union(*map(kinds_of, parts))
    if annotation is bool:
        return {"choice"}
    if annotation in {int, float}:
        return {"number"}
    if get_origin(annotation) is Literal:
        return {"name"}
    return {"text"} if annotation in {str, Path, Any} else set()


def forms_of(annotation: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield every form of a value with WORD in one place, and what that place takes."""
    if kinds := kinds_of(annotation):
        yield WORD, kinds
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in {Annotated, typing.Union, types.UnionType}:
        for part in parts[:1] if origin is Annotated else parts:
            yield from ((form, kinds) for form, kinds in forms_of(part) if form != WORD)
    elif origin in {list, tuple}:
        yield from ((f"[{form}]", kinds) for form, kinds in forms_of(parts[0]))
    elif origin is dict:
        yield f"{{{WORD}: x}}", {"text"}
        yield from ((f"{{a: {form}}}", kinds) for form, kinds in forms_of(parts[1]))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if name != "options":  # of an agent, whose own model says what they are
                yield from ((f"{{{name}: {form}}}", kinds) for form, kinds in forms_of(field.annotation))


PLACES = {name: list(forms_of(model)) for name, (model, _) in FILES.items()}


def refusal(path: Path, read: Callable[[Path], Any], form: str, word: str) -> str:
    path.write_text(f"\n{form.replace(WORD, word)}\n")
    with pytest.raises(SetupError) as caught:
        read(path)
    return str(caught.value)


def outcome(path: Path, read: Callable[[Path], Any], form: str, word: str) -> str:
    path.write_text(form.replace(WORD, word))
    try:
        read(path)
    except SetupError as error:
        return str(error)
    return "read"


@pytest.mark.parametrize(("name", "least"), [("recipe", 70), ("job", 40), ("policy", 15), ("settings", 40)])
def test_a_word_in_the_place_of_a_text_is_refused_in_every_file(tmp_path: Path, name: str, least: int) -> None:
    texts = [form for form, kinds in PLACES[name] if kinds <= {"text", "name"}]
    assert len(texts) >= least
    for at, form in enumerate(texts):
        word = ("yes", "no", "on", "off", "No", "YES")[at % 6]
        message = refusal(tmp_path / "file.yaml", FILES[name][1], form, word)
        assert "put it in quotes" in message, (form, message)
        assert "file.yaml:2: " in message or "file.yaml, line 2: " in message
        assert "\n" not in message


@pytest.mark.parametrize("name", FILES)
def test_where_a_number_is_expected_a_word_is_none(tmp_path: Path, name: str) -> None:
    for form in (form for form, kinds in PLACES[name] if kinds == {"number"}):
        assert "; expected a number" in refusal(tmp_path / "file.yaml", FILES[name][1], form, "no"), form


@pytest.mark.parametrize("name", FILES)
def test_where_a_choice_is_expected_a_word_is_one(tmp_path: Path, name: str) -> None:
    choices = [form for form, kinds in PLACES[name] if kinds == {"choice"}]
    assert choices
    for form in choices:
        yes, true = (outcome(tmp_path / "file.yaml", FILES[name][1], form, word) for word in ("yes", "true"))
        assert yes == true  # also what is said of other keys, which are missing


def test_a_word_behind_an_alias_and_in_a_value_of_any_type_is_found_and_a_password_is_not_shown(tmp_path: Path) -> None:
    recipe = (
        "tasks: {a: {open: &word yes, train: x.csv, group: *word}, b: {<<: &more {open: yes, group: no}, train: x.csv}}"
    )
    assert "tasks.a.group: YAML reads `yes`" in refusal(tmp_path / "r.yaml", load_recipe, recipe, "")
    action = "intents: {a: {reply: x, action: {topic: t, fields: {paid: [no]}}}}"
    assert "action.fields.paid: YAML reads `no`" in refusal(tmp_path / "p.yaml", load_policy, action, "")
    job = "kafka: {security: {sasl: {password: off}}}"
    assert "`off`" not in refusal(tmp_path / "j.yaml", read_job, job, "")
