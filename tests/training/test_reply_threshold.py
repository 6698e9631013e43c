"""The score below which a reply is not sent, chosen on the replies to validation rows."""

import numpy as np
import pytest
from tokenizers import Encoding

from murmura.schemas.acts import Act
from murmura.schemas.manifest import GenerationSpec, TaskSpec, Thresholds
from murmura.training.data.example import Example
from murmura.training.kinds.answers import Answer
from murmura.training.kinds.generation import Generation
from murmura.training.kinds.kind import ScoredReply
from murmura.training.kinds.reply_threshold import KnownReplies, choose_accept, is_right

WHEN, SHOP = (Act(act="request", slot="when"),), (Act(act="request", slot="shop"),)
DONE = (Act(act="notify_success", intent="block"), Act(act="inform", slot="when"))
TRAINING = [
    Example("", reply="When did you last have it?", acts=WHEN),
    Example("", reply="Which shop was it?", acts=SHOP),
    Example("", reply="Your card is blocked since {when}.", acts=DONE),
]
ROW = Example("", reply="Which day was it that you had it last?", acts=WHEN)


def scored(
    score: float, text: str = "When did you last have it?", *, ended: bool = True
) -> tuple[Example, ScoredReply]:
    return ROW, ScoredReply(text, score, ended)


@pytest.mark.parametrize(
    ("text", "acts", "right"),
    [
        ("When did you last have it?", WHEN, True),
        ("When did you have it?", WHEN, True),
        ("Which shop?", WHEN, False),
        ("Which shop was it?", SHOP, True),
        ("Your card is blocked since {when}.", DONE[::-1], True),
        ("Your card is blocked.", DONE, False),
        ("When did you have {when}?", WHEN, False),
        ("Was it?", (Act(act="goodbye"),), True),
        ("", WHEN, True),
    ],
)
def test_a_reply_is_right_that_names_the_slots_and_is_worded_as_its_acts_are(
    text: str, acts: tuple[Act, ...], right: bool
) -> None:
    row = Example("", reply="Since {when}." if acts in {DONE, DONE[::-1]} else "So?", acts=acts)
    known = KnownReplies(TRAINING)
    assert is_right(ScoredReply(text, 0.9, True), row, known) is right
    assert not is_right(ScoredReply(text, 0.9, False), row, known)


@pytest.mark.parametrize(("share", "accept"), [(0.0, 0.6), (0.02, 0.601), (0.05, 0.604), (1.0, 0.699)])
def test_the_threshold_is_the_highest_that_withholds_at_most_a_share_of_the_right_replies(
    share: float, accept: float
) -> None:
    right = [scored(0.6005 + at / 1000) for at in range(99, -1, -1)]
    wrong = [scored(0.1, "Which shop was it?"), scored(0.9, ended=False)]
    found = choose_accept([*right, *wrong], TRAINING, share)
    assert found.thresholds.accept == pytest.approx(accept, abs=0.0011)
    withheld = sum(reply.score < found.thresholds.accept for _, reply in right)
    assert withheld <= share * 100
    assert found.threshold_rows is not None
    assert (found.threshold_rows.genuine, found.threshold_rows.others) == (100, 2)
    assert found.threshold_rows.passed == 101 - withheld


def test_a_model_without_a_right_reply_sends_none_and_without_rows_nothing_is_chosen() -> None:
    found = choose_accept([scored(0.9, "Which shop was it?")], TRAINING, 0.02)
    assert found.thresholds.accept == 1
    assert choose_accept([], TRAINING, 0.02).threshold_rows is None


def test_replies_without_acts_are_right_by_their_slots_alone() -> None:
    training = [Example("", reply="One."), Example("", reply="Two.")]
    assert is_right(ScoredReply("Three.", 0.9, True), Example("", reply="Four."), KnownReplies(training))


def test_the_gate_counts_as_sendable_what_reaches_the_threshold() -> None:
    sizes = GenerationSpec(context=1, acts=True, layers=1, slots=[])
    task = TaskSpec(name="reply", kind="generation", labels=["{end}", "a"], generation=sizes)
    outputs = [
        {"text": text, "score": score, "finish": "end"} for text, score in (("x", 0.9), ("x", 0.5), ("{a}", 0.9))
    ]
    answers = [Answer(ROW, Encoding(), output, np.empty(0)) for output in outputs]
    for accept, share in ((None, 2 / 3), (0.5, 2 / 3), (0.6, 1 / 3)):
        held = task.model_copy(update={"thresholds": Thresholds(accept=accept)})
        assert Generation().further_outcomes(answers, held)["sendable"].metric == pytest.approx(share)
