"""The score below which a reply is not sent, chosen on the replies to validation rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_replies import REPLIES, reply_rows
from tiny_training import write_jsonl
from tokenizers import Encoding

from murmura.schemas.acts import Act
from murmura.schemas.manifest import GenerationSpec, TaskSpec, Thresholds
from murmura.training.data.example import Example
from murmura.training.fit.progress.validation import finished_specs
from murmura.training.fit.setup import prepare
from murmura.training.kinds import generation
from murmura.training.kinds.answers import Answer
from murmura.training.kinds.generation import Generation
from murmura.training.kinds.kind import Chosen, ScoredReply
from murmura.training.kinds.replies.threshold import (
    MAX_FLAGGED,
    KnownReplies,
    choose_accept,
    forbid_as_served,
    is_right,
)
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WHEN, SHOP = (Act(act="request", slot="when"),), (Act(act="request", slot="shop"),)
DONE = (Act(act="notify_success", intent="block"), Act(act="inform", slot="when"))
TRAINING = [
    Example("", reply="When did you last have it?", acts=WHEN),
    Example("", reply="Which shop was it?", acts=SHOP),
    Example("", reply="Your card is blocked since {when}.", acts=DONE),
]
ROW = Example("", reply="Which day was it that you had it last?", acts=WHEN)


def make_task(accept: float | None) -> TaskSpec:
    sizes = GenerationSpec(context=1, acts=True, layers=1, slots=[])
    limits = Thresholds(accept=accept)
    return TaskSpec(name="reply", kind="generation", labels=["{end}", "a"], generation=sizes, thresholds=limits)


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


def test_wrong_replies_that_score_less_than_nearly_all_right_ones_are_withheld() -> None:
    right = [scored(0.8 + at / 1000) for at in range(100)]
    wrong = [scored(0.3 + at / 100, "Which shop was it?") for at in range(40)] + [scored(0.9, ended=False)]
    accept = choose_accept([*right, *wrong], TRAINING, MAX_FLAGGED).thresholds.accept
    assert accept is not None
    withheld = sum(reply.score < accept for _, reply in wrong)
    assert withheld >= 40  # all that an honest threshold can tell by the score
    assert choose_accept([*right, *wrong], TRAINING, 0.0).thresholds.accept == pytest.approx(0.8, abs=0.001)


def test_in_choosing_a_reply_has_the_slots_of_its_row_alone_and_no_facts_as_in_service() -> None:
    labels = ["{end}", " {when}", "{when}", " {shop}", " When", " ten", " tender", "7", "{", " May"]
    rows = [Example("", reply=reply) for reply in ("Since {when}.", "Ten of {shop}?", "Why?")]
    allowed = [
        [label for label, bias in zip(labels, row, strict=True) if not bias] for row in forbid_as_served(labels, rows)
    ]
    words = [" When", " tender"]
    assert allowed == [["{end}", " {when}", "{when}", *words], ["{end}", " {shop}", *words], ["{end}", *words]]


def test_training_chooses_it_on_replies_without_what_service_forbids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "replies.jsonl", reply_rows(80, 0))
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(REPLIES))
    run = prepare(load_recipe(tmp_path / "model.yaml"), tmp_path, RunFolder(tmp_path / "run"))
    labels = run.tasks[0].labels
    with torch.no_grad():
        run.model.heads[0].bias[labels.index("7")] = 100
        run.model.heads[0].bias[labels.index(" {date}")] = 50
    seen: list[tuple[Example, ScoredReply]] = []
    monkeypatch.setattr(generation, "choose_accept", lambda replies, *_: seen.extend(replies) or Chosen())
    finished_specs(run, {})
    assert {"{date}" in reply.text for _, reply in seen} == {True, False}
    for row, reply in seen:
        assert "7" not in reply.text
        assert ("{date}" in reply.text) == ("{date}" in (row.reply or ""))


@pytest.mark.parametrize(
    ("accept", "says"),
    [(None, "no threshold was chosen, as there are no validation rows"), (0.0, "its threshold is 0")],
)
def test_a_task_whose_replies_are_all_sent_is_warned_of_in_a_line(accept: float | None, says: str) -> None:
    (line,) = Generation().describe_thresholds(make_task(accept))
    assert line == f"warning: every reply is sent, whatever its score: {says}; set `thresholds.accept`"


def test_replies_without_acts_are_right_by_their_slots_alone() -> None:
    training = [Example("", reply="One."), Example("", reply="Two.")]
    assert is_right(ScoredReply("Three.", 0.9, True), Example("", reply="Four."), KnownReplies(training))


def test_the_gate_counts_as_sendable_what_reaches_the_threshold() -> None:
    freely = {"text": "on day 7", "score": 0.1, "finish": "length"}
    outputs = [
        {"text": text, "score": score, "finish": "end"} for text, score in (("x", 0.9), ("x", 0.5), ("{a}", 0.9))
    ]
    answers = [Answer(ROW, Encoding(), freely, np.empty(0), served=output) for output in outputs]
    for accept, share in ((None, 2 / 3), (0.5, 2 / 3), (0.6, 1 / 3)):
        assert Generation().further_outcomes(answers, make_task(accept))["sendable"].metric == pytest.approx(share)
    without = [replace(answer, served=None) for answer in answers]
    assert "sendable" not in Generation().further_outcomes(without, make_task(0.5))
