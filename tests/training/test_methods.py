"""Methods around an encoder: each begins as the encoder, is merged to what it computes, and goes on after a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from same_answers import TEXTS, assert_same_answers
from stopped_training import assert_resumed_equals_whole
from tiny_methods import BEGIN_ELSEWHERE, IDS, MASK, METHODS, attached, disturb
from tiny_training import RECIPE

from murmura.runtime.errors import ModelRefused, SetupError
from murmura.runtime.model.deltas.delta import apply_delta, assemble
from murmura.runtime.model.model import Model
from murmura.training.export.export import export, served_logits
from murmura.training.fit.checkpoint import checkpoint_weights
from murmura.training.fit.loop import fit
from murmura.training.model.encoders import build_encoder, load
from murmura.training.model.methods.refuse import refuse_parts
from murmura.training.model.network import MultiTask
from murmura.training.recipe.recipe import load_recipe
from murmura.training.report.page_data import read_ranks
from murmura.training.report.sections.ranks import describe_ranks


def states(encoder: Any) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state[MASK.bool()].numpy()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_begins_as_the_encoder_and_is_merged_to_what_it_computes(base: Path, name: str) -> None:
    found = load(str(base))
    frozen = build_encoder(found.spec, found.weights, dropout=0.0).eval()
    encoder, method = attached(base, METHODS[name])
    if name not in BEGIN_ELSEWHERE:
        np.testing.assert_allclose(states(encoder), states(frozen), atol=1e-5)
    disturb(encoder)
    arrays = method.arrays(encoder)
    merged = build_encoder(method.extend(found.spec), apply_delta(found.weights, arrays), dropout=0.0).eval()
    assert np.abs(states(encoder) - states(frozen)).max() > 0.01
    np.testing.assert_allclose(states(merged), states(encoder), atol=1e-5)
    again, other = attached(base, METHODS[name])
    other.restore(again, arrays)
    np.testing.assert_allclose(states(again), states(encoder), atol=1e-5)


def test_dora_learns_lengths_and_directions_apart(base: Path) -> None:
    found, (encoder, method) = load(str(base)), attached(base, METHODS["dora"])
    name = "encoder.layer.0.intermediate.dense.weight"
    before = np.linalg.norm(found.weights[name], axis=1)
    np.testing.assert_allclose(method.arrays(encoder)[f"magnitude/{name}"], before, rtol=1e-5)
    disturb(encoder)
    arrays = method.arrays(encoder) | {f"magnitude/{name}": 2 * before}
    merged = apply_delta(found.weights, arrays)[name]
    np.testing.assert_allclose(np.linalg.norm(merged, axis=1), 2 * before, rtol=1e-5)
    direction = found.weights[name] + arrays[f"low_rank/{name}/b"] @ arrays[f"low_rank/{name}/a"]
    cosine = (merged * direction).sum(1) / np.linalg.norm(merged, axis=1) / np.linalg.norm(direction, axis=1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)


def test_ia3_trains_scales_alone_and_their_merge_is_exact(base: Path) -> None:
    found, (encoder, method) = load(str(base)), attached(base, METHODS["ia3"])
    disturb(encoder)
    arrays = method.arrays(encoder)
    assert {name.partition("/")[0] for name in arrays} == {"scale"}
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert trained == found.spec.layers * (2 * found.spec.hidden_size + found.spec.intermediate_size)
    merged = apply_delta(found.weights, arrays)
    for changed in ("attention.self.key.weight", "attention.self.key.bias", "output.dense.weight"):
        name = f"encoder.layer.1.{changed}"
        assert np.array_equal(merged[name], found.weights[name] * arrays[f"scale/{name}"])
    same = [name for name in found.weights if f"scale/{name}" not in arrays]
    assert all(np.array_equal(merged[name], found.weights[name]) for name in same)


def test_adalora_leaves_the_rank_where_the_change_is(base: Path) -> None:
    """What is to be learned is a change of one weight out of twelve."""
    torch.manual_seed(0)
    found, signal = load(str(base)), "encoder.layer.1.output.dense.weight"
    change = torch.linalg.qr(torch.randn(32, 4))[0] @ torch.randn(4, found.spec.intermediate_size)
    wanted = {**found.weights, signal: found.weights[signal] + 3 * change.numpy()}
    target = build_encoder(found.spec, wanted, dropout=0.0).eval()
    encoder, method = attached(base, METHODS["adalora"] | {"rank": 1, "dropout": 0})
    steps = 40
    optimiser = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.02)
    method.begin(steps)
    for step in range(1, steps + 1):
        ids = torch.randint(5, 60, (16, 8))
        with torch.no_grad():
            truth = target(input_ids=ids).last_hidden_state
        loss = (encoder(input_ids=ids).last_hidden_state - truth).square().mean()
        (loss + method.penalty()).backward()
        optimiser.step()
        method.after_step(step)
        optimiser.zero_grad()
    ranks = {name.split("/")[1]: len(array) for name, array in method.arrays(encoder).items() if name.endswith("/a")}
    assert sum(ranks.values()) == 12
    assert ranks[signal] == 4 > max(rank for name, rank in ranks.items() if name != signal)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_gives_the_same_bytes_and_its_delta_the_merged_model(
    few: Path, base: Path, tmp_path: Path, write_recipe: Callable[..., Path], name: str
) -> None:
    plain = {"budget": {"steps": 10, "evaluations": 1}, "trackers": [], "probe": False, "dropout": 0.1}
    tasks = {"places": RECIPE["tasks"]["places"]} if name in BEGIN_ELSEWHERE else RECIPE["tasks"]
    path = write_recipe(encoder=str(base), method=METHODS[name], save_minutes=0, few_rows=0, tasks=tasks, **plain)
    again = (3,) if name == "adalora" else ()  # before step 9, too: behind the last loss of rank
    assert_resumed_equals_whole(path, few, tmp_path, step=7, again=again)
    export(tmp_path / "run", tmp_path / "delta", delta=True)
    assemble(tmp_path / "delta", base, tmp_path / "assembled")
    export(tmp_path / "run", tmp_path / "full", graphs=("ragged", "padded"))
    models = [Model.load(tmp_path / folder, device="cpu") for folder in ("assembled", "full")]
    assert_same_answers(*models, within=0.02)
    for spec in models[1].manifest.tasks:
        together = served_logits(models[1], spec, TEXTS)
        alone = [served_logits(models[1], spec, [text])[0] for text in TEXTS[:4]]
        assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=False)), spec.name
    ranks = read_ranks(tmp_path / "run" / "checkpoint.safetensors")
    lines = dict(describe_ranks(ranks, 2))
    assert sum(ranks.values()) == {"adalora": 2 * 12, "lora": 4 * 12, "dora": 4 * 12}.get(name, 0)
    assert "attention.self.query 4" in lines["layer 1"] or name not in {"lora", "dora"}
    changed = {each.partition("/")[0] for each in load_file(tmp_path / "delta" / "delta.safetensors")}
    assert changed & {"low_rank", "scale", "added"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"method": "lore"},
            r"tiny\.yaml:\d+: method: no such method, found 'lore'; expected one of lora, dora, adalora, ia3, bottleneck, prefix",
        ),
        ({"method": {"rank": 3}}, "no such method, without a name; expected one of lora"),
        ({"method": "ia3", "lora": True}, "`lora` stands beside `method`; leave one of them out"),
        ({"method": METHODS["adalora"] | {"rank": 4}}, "start_rank 4 is to lie above rank 4"),
        ({"method": METHODS["adalora"] | {"warmup": 0.8}}, "warmup 0.8 and settled 0.3 leave no step between them"),
        ({"method": "dora"}, "method: dora keeps the encoder as it is, and `scratch` has no weights"),
        ({"method": "ia3", "freeze": "encoder"}, "freeze: ia3 trains what lies around the encoder's layers"),
        ({"method": "adalora", "freeze": 1}, "freeze: adalora is trained as a whole, so that no layer can be frozen"),
        (
            {"method": "prompt", "phases": [{"name": "one"}, {"name": "two", "freeze": "embeddings"}]},
            r"tiny\.yaml:\d+: phases\.freeze: prompt is trained as a whole, so that no layer can be frozen",
        ),
        (
            {"method": "ia3", "phases": [{"name": "one", "freeze": "encoder"}, {"name": "two", "freeze": "encoder"}]},
            r"tiny\.yaml:\d+: phases: ia3 trains what lies around the encoder's layers, which each phase freezes",
        ),
        ({"method": "adalora", "phases": [{"name": "one"}]}, "phases: adalora is trained as a whole"),
        ({"method": "prompt"}, "method: prompt turns the encoder to one task, found intent, "),
        ({"method": "adalora", "budget": {"steps": 1}}, "budget.steps: 1, but adalora takes 2 or more"),
        ({"method": METHODS["lora"] | {"targets": []}}, "lora.targets: .*at least 1 item"),
        (
            {"method": "adalora", "self_training": {"texts": "a.txt", "task": "intent"}},
            "phases: adalora is trained as a whole",
        ),
    ],
)
def test_what_does_not_mix_is_refused_by_name_before_anything_is_read(
    base: Path, tmp_path: Path, write_recipe: Callable[..., Path], keys: dict[str, Any], message: str
) -> None:
    encoder = RECIPE["encoder"] if keys == {"method": "dora"} else str(base)
    with pytest.raises(SetupError, match=message.replace("(", r"\(")):
        fit(write_recipe(encoder=encoder, **keys), tmp_path / "no-data", tmp_path / "run", quiet=True)


def test_a_phase_may_leave_what_a_method_trains_as_it_is(
    few: Path, base: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    phases = [{"name": "joint", "steps": 2}, {"name": "heads", "steps": 2, "freeze": "encoder"}]
    keys = {
        "encoder": str(base),
        "method": METHODS["lora"],
        "trackers": [],
        "few_rows": 0,
        "budget": {"evaluations": 1},
    }
    weights = []
    for name, number in (("one", 1), ("both", 2)):
        fit(write_recipe(**keys, phases=phases[:number]), few, tmp_path / name, quiet=True)
        weights.append(load_file(tmp_path / name / "checkpoint.safetensors"))
    changed = {name for name in weights[0] if not np.array_equal(weights[0][name], weights[1][name])}
    assert changed
    assert all(name.startswith("heads.") for name in changed)


def test_a_method_is_not_put_around_an_encoder_with_parts_of_another(
    base: Path, write_recipe: Callable[..., Path]
) -> None:
    found, (encoder, method) = load(str(base)), attached(base, METHODS["bottleneck"])
    spec = method.extend(found.spec)
    recipe = load_recipe(write_recipe(encoder=str(base), method="ia3"))
    refuse_parts(recipe, found.spec)
    with pytest.raises(SetupError, match=r"tiny-bert has parts of another method \(bottleneck\); ia3 is put around"):
        refuse_parts(recipe, spec)
    # Without a method its own weights and its parts are trained on.
    weights = apply_delta(found.weights, method.arrays(encoder))
    plain = MultiTask(build_encoder(spec, weights, dropout=0.0), [], dropout=0.0)
    assert set(checkpoint_weights(plain, low_rank=False)) == set(weights)


def test_more_learned_keys_than_an_encoder_reads_tokens_and_too_few_steps_are_refused_in_one_line(
    few: Path, base: Path, open_run: Callable[..., Any]
) -> None:
    with pytest.raises(
        SetupError, match=r"method.tokens: 33, but .*tiny-bert reads 32 tokens; expected at most as many$"
    ):
        open_run(few, method={"name": "prefix", "tokens": 33})
    with pytest.raises(SetupError, match=r"budget: adalora takes 2 steps or more, there is 1; raise `budget.epochs`$"):
        open_run(few, method="adalora", budget={"epochs": 0.01})


def test_a_step_that_fp16_leaves_out_says_nothing_of_ranks(base: Path) -> None:
    encoder, method = attached(base, METHODS["adalora"])
    method.begin(10)
    for step, factor in ((1, 1.0), (2, float("inf")), (3, 1.0)):
        (factor * encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state.square().sum()).backward()
        method.after_step(step)
        encoder.zero_grad()
    assert all(bool(each.isfinite().all()) for each in method.tensors().values())
    assert method.tensors()


def test_lora_is_the_same_by_both_keys(write_recipe: Callable[..., Path]) -> None:
    by_name, by_key = (
        load_recipe(write_recipe(name, **key))
        for name, key in (("a", {"method": METHODS["lora"]}), ("b", {"lora": {"rank": 4}}))
    )
    assert by_name.lora == by_key.lora
    assert by_name.method is None


def test_a_scale_of_another_shape_or_weight_is_refused() -> None:
    base = {"w": np.ones((2, 3), np.float32)}
    for name, shape in (("scale/w", (3, 1)), ("scale/v", (2, 1)), ("magnitude/w", (3,))):
        with pytest.raises(ModelRefused, match="the base has"):
            apply_delta(base, {name: np.ones(shape, np.float32)})


@pytest.mark.parametrize("name", ["bottleneck", "prompt"])
def test_a_model_with_parts_is_trained_further_and_gets_further_tasks(
    few: Path, base: Path, tmp_path: Path, write_recipe: Callable[..., Path], name: str
) -> None:
    plain = {"budget": {"steps": 3, "evaluations": 1}, "trackers": [], "probe": False, "few_rows": 0}
    tasks, keys = RECIPE["tasks"], {"encoder": str(base), "method": METHODS[name], "pooled": "distilled"}
    one = {"intent": tasks["intent"]}
    fit(write_recipe("one", tasks=one, **keys, **plain), few, tmp_path / "one.run", quiet=True)
    export(tmp_path / "one.run", tmp_path / "one", delta=True)
    assemble(tmp_path / "one", base, tmp_path / "model")
    before = Model.load(tmp_path / "model", device="cpu")
    # Another task beside it, on its encoder as it is.
    recipe = write_recipe("both", tasks={**one, "places": tasks["places"]}, **keys, **plain)
    fit(recipe, few, tmp_path / "both.run", add_to=tmp_path / "model", quiet=True)
    export(tmp_path / "both.run", tmp_path / "both")
    added = Model.load(tmp_path / "both", device="cpu")
    assert set(added.tasks) == {"intent", "places"}
    spec = before.tasks["intent"]
    for first, second in zip(*(served_logits(each, spec, TEXTS) for each in (before, added)), strict=True):
        assert np.array_equal(first, second)
    # All of it, as a retraining does.
    recipe = write_recipe("further", tasks=one, encoder=str(tmp_path / "model"), **plain)
    fit(recipe, few, tmp_path / "further.run", quiet=True)
    assert export(tmp_path / "further.run", tmp_path / "further").encoder.parts == before.manifest.encoder.parts
