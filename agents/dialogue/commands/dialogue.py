"""`murmura dialogue`: switches generated replies on and off while processes serve."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ....runtime.cli import options
from ....runtime.cli.releases.steps import By, now, publish_next, who
from ....runtime.errors import SetupError
from ....schemas.release import INTENT_CHARACTERS, GeneratedReplies, ReleaseState, switched

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ....runtime.settings.settings import Settings

dialogue_app = typer.Typer(
    help="Switch generated replies of conversations on and off.", no_args_is_help=True, rich_markup_mode="rich"
)


class Switch(StrEnum):
    OFF = "off"
    ON = "on"


@dialogue_app.callback()
def _dialogue() -> None:
    """Keep the name of the only command."""


@dialogue_app.command()
def generation(
    switch: Annotated[Switch, typer.Argument(metavar="off|on", help="What they are from now on.")],
    intent: Annotated[
        list[str] | None, typer.Option("--intent", metavar="NAME", help="Only for this intent; may be repeated.")
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason in the history.")] = "",
    by: By = None,
    name: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The released model. Default: model.name.")
    ] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Switch generated replies off or on in every process that serves the model. Off, the templates of the policy are sent.

    The switch is a step in the model's releases, with the same version: nothing is loaded, and it survives restarts, releases and rollbacks.

    Example: [bold]murmura dialogue generation off --why "odd wordings"[/bold]

    For one intent: [bold]murmura dialogue generation off --intent card_arrival --why "wrong days"[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    model = _find_model(settings, name)
    check = _find_check(settings) if intent else lambda names: None

    def step(state: ReleaseState | None) -> ReleaseState | None:
        if state is None:
            raise SetupError(f"{model} has no release to switch; {_ADVICE}")
        off = state.generated_replies.off
        # An intent that the policy has no more may still be switched on.
        check({*(intent or ())}.difference([] if off == "all" else off))
        replies = change(state.generated_replies, switch, intent or [])
        if replies == state.generated_replies:
            return None
        return switched(state, replies, by=who(by), why=why, at=now())

    before, new = publish_next(settings, model, step)
    after = new or before
    assert after is not None, "without a release the step raises"
    already = "" if new else "already "
    typer.echo(f"generated replies of {model} are {already}{after.generated_replies} (generation {after.generation})")


_ADVICE = (
    "without releases it is a setting: put `generated_replies_off: all`, or a list of intents, into "
    "agents.dialogue.options and restart the processes"
)


def change(replies: GeneratedReplies, switch: Switch, intents: list[str]) -> GeneratedReplies:
    """Return the replies after a switch; without intents it is for all. SetupError for one on among all that are off,
    and for what cannot be an intent's name.
    """
    off = replies.off
    if any(not 1 <= len(name) <= INTENT_CHARACTERS for name in intents):
        raise SetupError(f"--intent: expected the name of an intent, 1 to {INTENT_CHARACTERS} characters")
    if not intents:
        return GeneratedReplies(off="all" if switch is Switch.OFF else [])
    if off == "all":
        if switch is Switch.OFF:
            return replies
        raise SetupError("generated replies are off for all intents: switch them on without --intent first")
    kept = [*off, *intents] if switch is Switch.OFF else [name for name in off if name not in intents]
    return GeneratedReplies(off=sorted(set(kept)))


def _find_check(settings: "Settings") -> "Callable[[Collection[str]], None]":
    """Return what raises SetupError for intents that the policy of the settings lacks; where that cannot be read, say so."""
    from ....runtime.settings.agent_options import read_options
    from ..options import DialogueOptions
    from ..policy.policy_file import check_intents, load_policy

    try:
        read = read_options("dialogue", DialogueOptions, settings)
        if isinstance(read, DialogueOptions) and read.policy is not None:
            policy = load_policy(read.policy)
            return lambda names: check_intents(policy, names, "--intent")
        why = "agents.dialogue.options.policy names none; add --config FILE"
    except SetupError as error:
        why = str(error)
    typer.echo(f"--intent is not checked against the policy: {why}", err=True)
    return lambda names: None


def _find_model(settings: "Settings", name: str | None) -> str:
    found = settings.for_agent("dialogue").model.name if name is None else name
    if found is not None:
        return found
    raise SetupError(f"no released model is named: say which with --model NAME, or set model.name; {_ADVICE}")
