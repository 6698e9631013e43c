"""What docs/releases.md says about states and reasons is what the code knows."""

import json
import re
from pathlib import Path

from murmura.schemas.release import HISTORY, ReleaseState
from murmura.schemas.serving_event import RejectReason, ServingEventKind

TEXT = (Path(__file__).resolve().parents[2] / "docs/releases.md").read_text()


def test_the_state_in_the_document_is_one():
    (block,) = re.findall(r"^```json\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    state = json.loads(re.sub(r'"([0-9a-f]{4})\.\.\."', lambda cut: f'"{cut[1] * 16}"', block))
    read = ReleaseState.model_validate(state)
    assert json.loads(read.model_dump_json()) == state
    assert (read.history[-1].restores, HISTORY) == (1, 50)


def test_every_reason_and_event_stands_in_the_document():
    written = re.findall(r"^\| `([a-z_]+)` \|", TEXT, re.MULTILINE)
    assert written == [reason.value for reason in RejectReason]
    assert [kind.value for kind in ServingEventKind if f"`{kind}`" not in TEXT] == []
