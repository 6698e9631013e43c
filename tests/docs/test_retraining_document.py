"""What docs/retraining.md says of jobs, stages and events is what the code knows."""

import re
from pathlib import Path

import pytest
import yaml

from murmura.schemas.training_event import TrainingEventKind
from murmura.training.recipe.job import Fit, Gate, Job
from murmura.training.retrain.run import STAGES

TEXT = (Path(__file__).resolve().parents[2] / "docs/retraining.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
def test_each_job_in_the_document_is_one(block):
    job = Job.model_validate(yaml.safe_load(block))
    assert job.old is not None
    assert job.old.replay == 0.3


def test_every_stage_and_event_stands_in_the_document():
    assert [stage for stage in STAGES if f"`{stage}`" not in TEXT] == []
    assert [kind.value for kind in TrainingEventKind if f"`{kind}`" not in TEXT] == []


@pytest.mark.parametrize("model", [Job, Fit, Gate])
def test_every_key_of_a_job_stands_in_the_document(model):
    named = TEXT.partition("## The job")[2]
    assert [key for key in model.model_fields if not re.search(rf"\b{key}\b", named)] == []
