"""A search over a recipe's keys: the space, trials, what is pruned, resumed and shared, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tiny_study import INTENT, SHORT, tune
from tiny_training import RECIPE
from typer.testing import CliRunner

from murmura.runtime.errors import SetupError
from murmura.training.cli.tune import tune as command
from murmura.training.fit.loop import fit
from murmura.training.fit.teachers import answers
from murmura.training.recipe.recipe import load_recipe
from murmura.training.search import run as search
from murmura.training.search import taking
from murmura.training.search.results import Result, Trial, find_front
from murmura.training.search.space import digest_reading, open_space
from murmura.training.search.storage import DATABASE
from murmura.training.search.trial import Materials, Outcome, TrialFailed

WriteRecipe = Callable[..., Path]
RATE = "optimiser.encoder_lr"
app = typer.Typer()
app.command()(command)


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings take longer than tiny trials."""
    monkeypatch.setattr(search, "make_page", lambda *given: "")


def test_a_planted_optimum_is_found_and_its_recipe_trains_to_the_figure_of_the_study(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    optimiser = {"encoder_lr": 1e-9, "head_lr": 1e-9}
    space = {RATE: [1e-9, 1e-2], "optimiser.head_lr": [1e-9, 3e-2]}
    path = write_recipe(**{**SHORT, "optimiser": optimiser, "tune": {"space": space, "trials": 6}})
    out = tmp_path / "study"
    result, _ = tune(path, few, out)
    best = result.best
    assert best is not None
    assert best.params["optimiser.head_lr"] == 3e-2
    assert result.trials[0].params == {RATE: 1e-9, "optimiser.head_lr": 1e-9}  # the recipe as it stands
    assert best.values[0] > result.trials[0].values[0] + 0.2
    written = (out / "best.yaml").read_text()
    assert f"# On validation: mean {best.values[0]:.6f}." in written
    assert "tune" not in yaml.safe_load(written)
    record = fit(out / "best.yaml", few, tmp_path / "run", quiet=True)
    assert record.validation["intent"]["main"] == pytest.approx(best.values[0], abs=1e-12)
    page = (out / "tune.html").read_text()
    assert all(part in page for part in ("History: mean", "Importance for mean", "tune-slice-1"))
    assert "http" not in page.replace("http-equiv", "")
    assert json.loads((out / "tune.json").read_text())["best"] == best.number
    assert not list((out / "trials").iterdir())


@pytest.mark.usefixtures("without_page")
def test_rows_are_read_once_a_study_and_a_hopeless_trial_is_ended_early(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {RATE: [3e-3, 1e-9], "optimiser.head_lr": [1e-2, 1e-9, 2e-9]}
    tuned = {"space": space, "trials": 4, "sampler": "random"}
    path = write_recipe(**{**SHORT, "budget": {"steps": 20, "evaluations": 4}, "tune": tuned})
    read, times = Materials.of.__globals__["read_material"], []
    monkeypatch.setitem(Materials.of.__globals__, "read_material", lambda *a: (times.append(1), read(*a))[1])
    result, said = tune(path, few, tmp_path / "study")
    assert len(times) == 1
    pruned = [each for each in result.trials if each.state == "pruned"]
    assert pruned
    assert all(min(each.params.values()) < 1e-8 for each in pruned)
    assert any("ended early after scoring" in line for line in said)


def test_failed_trials_are_no_end_until_there_are_several_in_a_row(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, calls = taking.take_trial, []

    def fail(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise TrialFailed("step 3: the loss of task intent is nan")
        return taken(*given, **named)

    monkeypatch.setattr(taking, "take_trial", fail)
    space = {"optimiser.head_lr": [1e-2, 2e-2]}
    path = write_recipe(**{**SHORT, "tune": {"space": space, "trials": 2, "failures": 2}})
    result, _ = tune(path, few, tmp_path / "one")
    assert [each.state for each in result.trials] == ["failed", "complete"]
    assert "nan" in (tmp_path / "one" / "tune.html").read_text()
    monkeypatch.setattr(taking, "take_trial", lambda *a, **k: (_ for _ in ()).throw(TrialFailed("out of memory")))
    result, said = tune(path, few, tmp_path / "all", trials=9)
    assert len(result.trials) == 2
    assert "2 trials in a row have failed: the study ends here" in said
    assert result.best is None


def test_ctrl_c_keeps_what_there_is_and_several_objectives_give_a_front(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, calls = taking.take_trial, []

    def stop(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return taken(*given, **named)

    monkeypatch.setattr(taking, "take_trial", stop)
    tasks = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
    tuned = {"space": {"tasks.places.loss_weight": {"low": 0.1, "high": 4.0}}, "trials": 3, "objective": "each"}
    path, out = write_recipe(**{**SHORT, "tasks": tasks, "tune": tuned}), tmp_path / "study"
    words = [str(path), "--data", str(few), "--out", str(out), "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 130, done.output
    assert "interrupted; the same command goes on with the study" in done.output
    found = json.loads((out / "tune.json").read_text())
    assert [each["state"] for each in found["trials"]] == ["complete", "complete", "died"]
    monkeypatch.setattr(taking, "take_trial", lambda *a, **k: Outcome([0.1, 0.2], {}, 1, 0.0))
    assert CliRunner().invoke(app, words).exit_code == 0
    again = json.loads((out / "tune.json").read_text())["trials"]
    assert [each["state"] for each in again] == ["complete", "complete", "died", "complete"]
    assert again[3]["params"] == found["trials"][2]["params"] != {}
    done = CliRunner().invoke(app, [*words, "--trials", "9", "--minutes", "0"])
    assert (done.exit_code, "0 minutes are over" in done.output) == (0, True), done.output
    assert found["objectives"] == ["intent", "places"]
    assert (out / f"trial-{found['front'][0]}.yaml").is_file()
    assert "places against intent" in (out / "tune.html").read_text()


def test_the_front_holds_what_nothing_is_better_than() -> None:
    values = [[1.0, 0.0], [0.5, 0.5], [0.4, 0.5], [0.0, 1.0], [1.0, 0.0]]
    trials = [Trial(number, "complete", {}, each) for number, each in enumerate(values)]
    assert [each.number for each in find_front(trials)] == [0, 1, 3]


def test_rows_are_known_by_what_reads_them(write_recipe: WriteRecipe) -> None:
    def known(**changes: Any) -> str:
        return digest_reading(load_recipe(write_recipe(**{**SHORT, **changes})))

    same = {"batch_size": 4, "optimiser": {"encoder_lr": 1e-4}, "budget": {"steps": 9}, "lora": True}
    assert known() == known(**same) == known(tasks={"intent": {**INTENT["intent"], "epochs": 2, "focal": 1.0}})
    assert known() != known(max_tokens=8)
    assert known() != known(budget={"validation_rows": 5})
    assert known() != known(tasks={"intent": {**INTENT["intent"], "validation_share": 0.2}})


def test_a_space_names_keys_of_mappings_lists_and_tasks(write_recipe: WriteRecipe) -> None:
    space = {"phases.0.steps": {"low": 1, "high": 3}, "lora": [None, {"rank": 4}], "tasks.intent.focal": [1, 2]}
    recipe = load_recipe(write_recipe(**{**SHORT, "phases": [{"name": "a", "steps": 2}], "tune": {"space": space}}))
    assert recipe.tune is not None
    opened = open_space(recipe, recipe.tune)
    assert opened.own_values() == {"phases.0.steps": 2, "lora": None}
    longer = load_recipe(
        write_recipe(**{**SHORT, "budget": {"epochs": 3}, "tune": {"space": {"budget.epochs": {"low": 2, "high": 40}}}})
    )
    assert longer.tune is not None
    assert repr(open_space(longer, longer.tune).own_values()) == "{'budget.epochs': 3}", "a whole number"
    made = opened.recipe_of({"phases.0.steps": 3, "lora": '{"rank": 4}', "tasks.intent.focal": 2})
    assert (made.phases[0].steps, made.lora and made.lora.rank, made.tasks["intent"].focal) == (3, 4, 2)


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        (
            {"space": {"optimiser.rate": [1, 2]}},
            r"tune\.yaml:\d+: tune\.space\.optimiser\.rate: 1 is refused: the recipe has no key",
        ),
        ({"space": {"tasks.colour.epochs": [1, 2]}}, r"no task colour; expected one of intent"),
        ({"space": {"dropout": {"low": 0.3, "high": 0.1}}}, r"tune\.space\.dropout: low 0\.3 is not below high 0\.1"),
        ({"space": {"dropout": []}}, r"expected two choices or more, found 0"),
        ({"space": {"dropout": {"low": 0, "high": 0.1, "log": True}}}, r"low 0 has no logarithm"),
        (
            {"space": {"dropout": {"low": 0.1, "high": 1.5}}},
            r"tune\.space\.dropout: 1\.5 is refused: Input should be less",
        ),
        ({"space": {"freeze": [1, 7]}}, r"tune\.space\.freeze: 7 is refused: .*7 layers, the encoder has 1"),
        ({"space": {"max_tokens": [24, 99]}}, r"tune\.space\.max_tokens: 99 is refused: .*max_positions 32"),
        ({"space": {}}, r"tune\.space: .*at least 1 item"),
        ({"space": {"name": ["a", "b"]}}, r"a trial cannot change `name`"),
        ({"space": {"dropout": [0.0, 0.1]}, "objective": ["colour"]}, r"tune\.objective: no task colour"),
        *(
            (
                {"space": {"dropout": [0.0, 0.1]}, "storage": url},
                r"tune\.storage: has a password, .*MURMURA_TUNE_STORAGE",
            )
            for url in ("mysql+nodriver://me:se/cret@x/y", "postgresql://x/y?password=secret")
        ),
        ({"space": {"data_seed": [0, 7]}}, r"tune\.space\.data_seed: with \d figures are of other validation rows"),
        ({"space": {"tasks.intent.objective": [None, {}]}}, r"a trial ends before the second stage, which `objective`"),
        (
            {"space": {"dropout": [0.0, 0.1]}, "storage": "sqlite:////no/such/folder/a.db"},
            r"the storage of the study cannot be used",
        ),
        ({"space": {"dropout": [0.0, 0.1]}, "storage": "what"}, r"tune\.storage: not the URL of a database"),
        (None, r"there is no `tune`"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, tuned: dict[str, Any] | None, message: str
) -> None:
    path = write_recipe("tune", **{**SHORT, "tune": tuned})
    with pytest.raises(SetupError, match=message) as caught:
        tune(path, few, tmp_path / "study")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_storage_shows_no_password(few: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    path = write_recipe(**{**SHORT, "tune": {"space": {"dropout": [0.0, 0.1]}}})
    for url in ("mysql+nodriver://me:secret@x/y", "mysql+nodriver://x/y?password=secret", "no driver://me:secret@x"):
        with pytest.raises(SetupError) as caught:
            tune(path, few, tmp_path / "study", storage=url)
        assert "secret" not in str(caught.value)


def test_a_smaller_model_and_a_pretraining_are_not_searched(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    tuned = {"space": {"dropout": [0.0, 0.1]}}
    smaller = write_recipe(**{**SHORT, "encoder": None, "smaller": {"teacher": "m", "layers": 1}, "tune": tuned})
    with pytest.raises(SetupError, match=r"smaller: trials know nothing of the larger model"):
        tune(smaller, few, tmp_path / "study")
    pretrained = write_recipe(**{**SHORT, "pretrain": {"objectives": {"masked_words": {}}}, "tune": tuned})
    with pytest.raises(SetupError, match=r"pretrain: each trial would repeat it"):
        tune(pretrained, few, tmp_path / "study")


@pytest.mark.usefixtures("without_page")
def test_a_head_of_few_rows_is_judged_as_it_ships_and_teachers_are_asked_once_a_study(
    few: Path, base: Path, run: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = answers._compute
    monkeypatch.setattr(answers, "_compute", lambda *given: (computed.append(1), compute(*given))[1])
    space = {"optimiser.head_lr": [1e-2, 2e-2]}
    tasks = dict.fromkeys(("intent", "queue"), RECIPE["tasks"]["intent"])  # that with a teacher does not begin so
    keys = {"encoder": str(base), "teachers": {"intent": str(run)}, "budget": {"steps": 2, "evaluations": 1}}
    path = write_recipe(**{**SHORT, **keys, "tasks": tasks, "tune": {"space": space, "trials": 1}})
    for trials in (2, 3):  # a second process asks the files of the first
        result, _ = tune(path, few, tmp_path / "study", trials=trials)
    assert len(computed) == 1
    record = fit(tmp_path / "study" / "best.yaml", few, tmp_path / "run", quiet=True)
    best = result.best
    assert best is not None
    assert record.data["queue"].learned_validation
    assert record.validation == best.scores


@pytest.mark.usefixtures("without_page")
def test_a_folder_holds_the_study_of_one_recipe(few: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    def study(choices: list[float], trials: int) -> Result:
        path = write_recipe(**{**SHORT, "tune": {"space": {"optimiser.head_lr": choices}, "trials": trials}})
        return tune(path, few, tmp_path / "study")[0]

    assert len(study([1e-2, 2e-2], 1).trials) == 1
    assert len(study([1e-2, 2e-2], 2).trials) == 2
    with pytest.raises(SetupError, match=rf"{DATABASE}: holds the study tiny of another recipe"):
        study([1e-2, 3e-2], 2)


def test_without_optuna_the_command_says_what_to_install(
    few: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "optuna" else object())
    with pytest.raises(SetupError, match=r"pip install 'murmura\[search\]'"):
        CliRunner().invoke(app, [str(write_recipe(**SHORT))], catch_exceptions=False)
