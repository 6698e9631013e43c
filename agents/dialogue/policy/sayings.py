"""What a policy lets a reply say: templates with the names of slots and constants, and how these are filled. Pure."""

import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, JsonValue, StringConstraints

from ....runtime.generation.facts import find_fact
from ....schemas.acts import Act

ABOUT_THE_TURN: Final = ("conversation", "intent", "request_id", "text")
"""Names that an action's fields may use besides slots and constants."""


def _refuse_blank(text: str) -> str:
    if text.isspace():
        raise ValueError("a text of white space says nothing")
    return text


Template = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_refuse_blank)]


def _read_act(value: Any) -> Any:
    return {"act": value} if isinstance(value, str) else value


class Words(BaseModel):
    """A template, and whether the model words it. A text alone is a template that is sent as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: Template
    generate: bool = False
    """The model words the reply; the template is sent where it cannot."""
    acts: list[Annotated[Act, BeforeValidator(_read_act)]] = []
    """What the reply says; by default that of its place in the policy (see `acts`)."""

    @property
    def slots(self) -> list[str]:
        """The slots and constants that the template names, in its order."""
        names = (name for _, name, _, _ in string.Formatter().parse(self.template) if name)
        return list(dict.fromkeys(names))


def _read_saying(value: Any) -> Any:
    return value if isinstance(value, dict | Words) else {"template": value}


Saying = Annotated[Words, BeforeValidator(_read_saying)]
"""`TEXT`, or `{generate: true, template: TEXT}`."""


class _Known(dict[str, str]):
    """Replaces unknown names by nothing: after a change of the policy a conversation may lack a slot."""

    def __missing__(self, name: str) -> str:
        return ""


def fill(template: str, known: Mapping[str, str]) -> str:
    """Replace the names in a text by their values. Braces in the values are kept."""
    return template.format_map(_Known(known))


def fill_fields(value: JsonValue, known: Mapping[str, str]) -> JsonValue:
    """Replace the names in every string of an action's fields."""
    if isinstance(value, str):
        return fill(value, known)
    if isinstance(value, list):
        return [fill_fields(item, known) for item in value]
    if isinstance(value, dict):
        return {key: fill_fields(item, known) for key, item in value.items()}
    return value


def find_strings(value: JsonValue) -> Iterator[str]:
    """Yield every string of an action's fields. ValueError for what no record can hold."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("a whole number of more than 64 bits cannot be published")
    elif isinstance(value, list):
        for item in value:
            yield from find_strings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not name.isprintable():
                raise ValueError(f"{name!r} is no name for a field")
            yield from find_strings(item)


def check_saying(saying: Words, known: Iterable[str], what: str) -> None:
    """Raise ValueError for a template that `fill` could not fill, and for a generated reply that states a fact by itself."""
    names = [*known]
    check_names(saying.template, names, what)
    if unknown := [act.slot for act in saying.acts if act.slot is not None and act.slot not in names]:
        raise ValueError(f"an act names {unknown[0]}, which is not one of {_list(what, names)}")
    if saying.generate and "{{" in saying.template + saying.template.replace("}}", "{{"):
        raise ValueError("a generated reply cannot hold braces that are meant as such")
    if saying.generate and (fact := find_fact(saying.template)) is not None:
        raise ValueError(
            f"a generated reply states no number, amount, date, duration or address outside slots, found {fact!r}: "
            "put it in `constants` and name that in braces, or leave out `generate`"
        )


def check_names(template: str, names: list[str], what: str) -> None:
    """Raise ValueError for a text that `fill` could not fill, or that would access attributes of Python objects."""
    if any("\ud800" <= character <= "\udfff" for character in template):
        raise ValueError("a lone surrogate is no text")
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        raise ValueError("a brace stands alone; write {{ and }} for braces that are meant as such") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} must be the plain name of a slot in braces")
        if name not in names:
            raise ValueError(f"{{{name}}} is not one of {_list(what, names)}")


def _list(what: str, names: list[str]) -> str:
    return f"{what}{': ' + ', '.join(names) if names else ''}"
