"""Out of scope by distance: centres of labels, a limit on the rows of the labels, and the head that applies both."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import tiny_encoder

from murmura.runtime.errors import SetupError
from murmura.runtime.model.kinds.registry import kind_of
from murmura.schemas.manifest import HeadForm, TaskSpec
from murmura.training.fit.few_labels.centres import choose_limits, find_centres, find_nearest, set_outside
from murmura.training.fit.few_labels.cross_validation import cross_validate
from murmura.training.kinds.distance_head import DistanceHead
from murmura.training.recipe.recipe import load_recipe


def test_a_centre_is_the_mean_direction_whatever_the_length() -> None:
    centres = find_centres(np.array([[2.0, 0], [0, 9.0], [5.0, 0]]), [0, 0, 1], 3)
    assert np.allclose(centres, [[np.sqrt(0.5), np.sqrt(0.5)], [1, 0], [0, 0]], atol=1e-6)
    assert np.allclose(find_nearest(np.array([[0, 3.0], [-1.0, 0]]), centres), [np.sqrt(0.5), -np.sqrt(0.5)])


def test_the_limit_leaves_the_share_beyond_it_and_the_median_row_has_its_odds() -> None:
    nearest = np.linspace(0.5, 0.9, 41)
    scale, limit = choose_limits(nearest, 0.1)
    assert (nearest < limit).sum() == 4
    assert scale * (np.median(nearest) - limit) == pytest.approx(4)
    assert choose_limits(nearest, 0.0)[1] == 0.5
    assert np.isfinite(choose_limits(np.ones(3))[0])


def test_the_head_takes_for_out_of_scope_what_lies_beyond_the_limit_and_nothing_else() -> None:
    torch.manual_seed(0)
    head, states = DistanceHead(4, 3, 1), np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    centres = find_centres(states[:20], [0, 2] * 10, 3)
    nearest = find_nearest(states, centres)
    limits = choose_limits(nearest, 0.3)
    with torch.no_grad():
        head.centres.copy_(torch.from_numpy(centres))
        head.limits.copy_(torch.tensor(limits))
        found = head(torch.from_numpy(states)).numpy()
        linear = torch.nn.functional.linear(torch.from_numpy(states), head.weight, head.bias).numpy()
    assert np.array_equal(found.argmax(1) == 1, nearest < limits[1])
    assert np.allclose(found, set_outside(linear, nearest, limits, 1), atol=1e-4)
    assert np.array_equal(found[:, [0, 2]], linear[:, [0, 2]])


def test_before_a_limit_is_chosen_nothing_is_out_of_scope() -> None:
    assert (DistanceHead(4, 3, 0)(torch.randn(9, 4)).argmax(1) != 0).all()


def test_a_manifest_with_a_distance_needs_a_label_out_of_scope_and_no_other_form() -> None:
    task = TaskSpec(name="t", kind="classification", labels=["a", "b", "no"], head=HeadForm(distance=True))
    with pytest.raises(ValueError, match="needs an out_of_scope label"):
        kind_of(task).check(task)
    form = HeadForm(distance=True, pooling="mean_max")
    with pytest.raises(ValueError, match="no layers, pooling or hidden layer"):
        kind_of(task).check(task.model_copy(update={"out_of_scope": "no", "head": form}))
    shapes = kind_of(task).head_shapes(task, tiny_encoder(hidden=16))
    assert shapes == {"centres": (3, 16), "limits": (2,), "weight": (3, 16), "bias": (3,)}


def test_a_recipe_by_distance_without_a_class_or_with_a_head_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    scope = "{label: none, by: distance, learn: false}"
    recipe.write_text(f"tasks: {{t: {{train: a.csv, out_of_scope: {scope}}}}}\n")
    with pytest.raises(SetupError, match="`by: distance` makes a class"):
        load_recipe(recipe)
    scope = "{label: none, by: distance}, head: {hidden: 8}"
    recipe.write_text(f"tasks: {{t: {{train: a.csv, out_of_scope: {scope}}}}}\n")
    with pytest.raises(SetupError, match="leave `head` out"):
        load_recipe(recipe)


def test_a_cross_validation_counts_what_is_right_withheld_and_confused() -> None:
    logits = np.array([[3.0, 0, 1], [3, 0, 1], [0, 2, 9], [2, 1, 0]])
    found = cross_validate(logits, [0, 1, 1, 1], ["a", "b", "none"], "none")
    assert (found.rows, found.accuracy, found.withheld) == (4, 0.5, 0.25)
    assert [(each.label, each.answered, each.rows) for each in found.confusions] == [("b", "a", 2)]
    assert found.interval[0] < 0.5 < found.interval[1]
    outside = np.array([[0.0, 0, 9], [5, 0, 1]])
    assert cross_validate(np.vstack([logits, outside]), [0, 1, 1, 1, 2, 2], ["a", "b", "none"], "none") == found
