"""Retraining a model with a task that generates: replies that people worded otherwise are learned, or its decoder stays as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tiny_loop import write_corrections, write_job
from tiny_replies import reply_rows
from tiny_training import write_jsonl

from murmura.runtime.model.model import Model
from murmura.schemas.acts import Act
from murmura.training.data.replies import read_reply, write_reply
from murmura.training.data.row import Row
from murmura.training.data.rules import Rules
from murmura.training.kinds.figures.outcome import of_ratio
from murmura.training.mix.balance import repeat_replies
from murmura.training.mix.corrections import read_corrections
from murmura.training.mix.plan import Mix, plan_mix
from murmura.training.recipe.job import read_job
from murmura.training.recipe.keys.reading import Columns, Reading
from murmura.training.retrain.preview import preview
from murmura.training.retrain.run import GateRefused, retrain

CLOSING = " Thank you!"
FIT: dict[str, Any] = {
    "epochs": 10,
    "evaluations": 1,
    "encoder_lr": 1e-3,
    "head_lr": 5e-3,
    "dropout": 0.0,
    "threads": 1,
}


def reworded(count: int, seed: int) -> list[dict[str, Any]]:
    """Return what people made of replies that ask for something: a closing phrase more."""
    asking = [row for row in reply_rows(3 * count, seed) if row["acts"][0]["act"] == "request"][:count]
    return [{**row, "reply": f"{row['reply']}{CLOSING}", "conversation": f"talk {row['talk']}"} for row in asking]


def put_job(desk: Path, folder: Path, **changes: Any) -> Path:
    gate = {"least_corrections": 20, "allowance": 0.05}
    return write_job(folder, desk, **{"fit": FIT, "gate": gate, **changes})


@pytest.fixture
def job(reply_desk: Path, tmp_path: Path) -> Path:
    (tmp_path / "corrections").mkdir()
    write_jsonl(tmp_path / "corrections/reply.train.jsonl", reworded(60, 3))
    write_jsonl(tmp_path / "corrections/reply.heldout.jsonl", reworded(30, 4))
    return put_job(reply_desk, tmp_path)


def mix_of(path: Path, desk: Path) -> Mix:
    value, manifest = read_job(path).value, Model.load(desk / "desk").manifest
    assert value.feedback.data is not None
    return plan_mix(value, manifest, read_corrections(value.feedback.data, manifest, 5))


def test_replies_that_people_worded_otherwise_are_learned_and_go_live(
    reply_desk: Path, job: Path, tmp_path: Path
) -> None:
    planned = "\n".join(preview(job))
    assert "learn reply: 60 rows, 30 held out" in planned
    done = retrain(job, tmp_path / "work", quiet=True)
    assert done.version == 1
    model = Model.load(tmp_path / "work/evaluate/model")
    chosen, before = (each.manifest.task("reply").threshold_rows for each in (model, Model.load(reply_desk / "desk")))
    assert chosen is not None
    assert chosen != before
    held = read_corrections(tmp_path / "corrections", model.manifest, 5)["reply"].heldout
    replies = model.generate([example.given for example in held], task="reply")
    assert np.mean([reply.text.endswith(CLOSING) for reply in replies]) >= 0.8
    figures = json.loads((tmp_path / "work/gate/gate.json").read_text())["figures"]
    found = {f"{each['task']}/{each['set']}": each for each in figures}
    further = ("", ", slots named", ", slots not invented", ", sendable", ", distinct")
    assert {f"reply/test{name}" for name in further} <= set(found)
    assert found["reply/feedback"]["candidate"] > found["reply/feedback"]["current"]
    target = found["reply/feedback, corrected"]
    assert (target["target"], target["verdict"]) == (True, "better")
    assert target["conversations"] < target["rows"] == 30
    report = done.report.read_text()
    assert "## Replies that people worded otherwise" in report


def test_old_test_rows_of_acts_that_people_reworded_measure_nothing(reply_desk: Path, job: Path) -> None:
    mix = mix_of(job, reply_desk)
    assert mix.reworded == {"request city", "request date"}
    assert {example.text for example in mix.old["reply"].test} == {"offer city", "offer date"}
    assert {example.text for example in mix.old["reply"].train} > mix.reworded


def test_replies_of_people_count_twice_as_much_as_old_ones_to_the_same_acts(reply_desk: Path, job: Path) -> None:
    mix = mix_of(job, reply_desk)
    edits, old = mix.corrections["reply"].train, mix.old["reply"].train
    groups = repeat_replies(edits[:20], old)
    for acts in {example.text for example in edits[:20]}:
        seen = sum(times * sum(each.text == acts for each in rows) for times, rows in groups.items())
        assert seen == pytest.approx(2 * sum(each.text == acts for each in old), rel=0.1)
    assert [*repeat_replies(edits, [])] == [1]


def test_a_decoder_without_rows_stays_as_it_was_and_the_gate_says_so(reply_desk: Path, tmp_path: Path) -> None:
    write_corrections(tmp_path / "corrections")
    recipe = yaml.safe_load((reply_desk / "base.yaml").read_text())
    del recipe["tasks"]["reply"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(recipe))
    path = put_job(reply_desk, tmp_path, old={"recipe": "old.yaml", "data": str(reply_desk)}, release={"push": False})
    assert "keep the decoder of reply as it is: no rows" in [*preview(path)]
    try:
        report = retrain(path, tmp_path / "work", quiet=True).report.read_text()
    except GateRefused:
        report = (tmp_path / "work/gate/gate.md").read_text()
    assert "reply is not compared: it has no held-out rows" in report
    assert "Its decoder stays as it was, the encoder before it does not" in report
    before, after = (
        load_file(each / "model.safetensors") for each in (reply_desk / "desk", tmp_path / "work/evaluate/model")
    )
    assert all(np.array_equal(before[name], after[name]) for name in before if name.startswith("heads.reply."))
    assert not np.array_equal(before["embeddings.LayerNorm.bias"], after["embeddings.LayerNorm.bias"])
    assert Model.load(tmp_path / "work/evaluate/model").generate(
        [mix_example(reply_desk).given], [{"city"}], task="reply"
    )


def mix_example(desk: Path) -> Any:
    spec = Model.load(desk / "desk").manifest.task("reply").generation
    rules = Rules(Reading(format="jsonl"), Columns(), None, None, generation=spec)
    return read_reply(Row("rows:1", reply_rows(1, 9)[0]), rules)


def test_a_reply_is_written_as_a_row_that_reads_the_same(reply_desk: Path) -> None:
    spec = Model.load(reply_desk / "desk").manifest.task("reply").generation
    rules = Rules(Reading(format="jsonl"), Columns(), None, None, generation=spec)
    turns = [{"role": "user", "text": "a:  b"}, {"role": "agent", "text": "x: y: z"}]
    acts = [{"act": "offer", "slot": "city", "intent": "Find"}, {"act": "goodbye"}]
    row = {"turns": turns, "acts": acts, "reply": "{city}: bye", "slots": {"n": "bye"}}
    one = read_reply(Row("rows:1", row), rules)
    assert read_reply(Row("rows:1", write_reply(one)), rules) == one
    assert one.acts == (Act(act="offer", slot="city", intent="Find"), Act(act="goodbye"))


def test_a_ratio_is_that_of_the_sums() -> None:
    found = of_ratio([1, 2], [2, 6])
    assert found.metric == pytest.approx(3 / 8)
    assert found.rows(np.array([True, False])).metric == pytest.approx(0.5)
