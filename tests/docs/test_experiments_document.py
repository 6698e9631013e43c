"""What docs/experiments.md says about rules and steps is what the code knows."""

import re
from pathlib import Path
from typing import get_args

from murmura.runtime.cli.experiments.inputs import read_rules
from murmura.schemas.experiment import Measure, Rules
from murmura.schemas.serving_event import ServingEventKind

TEXT = (Path(__file__).resolve().parents[2] / "docs/experiments.md").read_text()


def test_the_rules_in_the_document_are_all_of_the_defaults(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    (tmp_path / "rules.yaml").write_text(block)
    assert read_rules(tmp_path / "rules.yaml") == read_rules(None)
    assert re.findall(r"^(\w+):", block, re.MULTILINE) == list(Rules.model_fields)


def test_every_measure_and_event_stands_in_the_document():
    measures = re.findall(r"^\| `(\w+)` \| .* \| (?:higher|lower|as `better` says) \|$", TEXT, re.MULTILINE)
    assert measures == list(get_args(Measure.model_fields["measure"].annotation))
    events = [kind for kind in ServingEventKind if kind.startswith("experiment.")]
    assert [kind for kind in events if f"`{kind}`" not in TEXT] == []
