"""The page of a joint training in a real browser: curves, weights, cosines and layers, at the width of a desk and of a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import BrowserThread, browser_thread
from tiny_training import RECIPE, rows, write_jsonl

from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit

LONG = "what_the_customer_writes_about"
DRAWINGS = {
    "training": ["curve-loss", "curve-learning-rate", "curve-gradient", "curve-validation"],
    "balance": ["curve-weight", "curve-cosine"],
    "layers": ["layer-shares"],
}
A4 = {"width": 718, "height": 1047}
"""Pixels between margins of a centimetre."""
OVERFLOWING = """() => {
    const scrolls = each => each && (getComputedStyle(each).overflowX !== 'visible' || scrolls(each.parentElement));
    const box = each => each.getBoundingClientRect();
    const wide = [...document.body.querySelectorAll('*')].filter(each =>
        box(each).right > innerWidth + 1 && !each.closest('svg') && !scrolls(each.parentElement));
    const cut = [...document.querySelectorAll('svg text')].filter(each => {
        const [own, whole] = [box(each), box(each.closest('svg'))];
        return own.left < whole.left - 1 || own.right > whole.right + 1 || own.top < whole.top - 1 || own.bottom > whole.bottom + 1;
    });
    return [...wide, ...cut].map(each => `${each.tagName} ${each.textContent.trim().slice(0, 40)}`);
}"""
"""What sticks out of the window and cannot be scrolled to, and text of drawings that sticks out of them."""
DRAWN = """() => Object.fromEntries([...document.querySelectorAll('main svg')].map(each => {
    const { width, height } = each.getBoundingClientRect();
    return [each.getAttribute('aria-labelledby').replace(/-title .*/, ''), Math.min(width, height)];
}))"""
"""The smaller side of each drawing, by its name."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, with texts, of a joint training of two tasks that learn their weights, one of them which layers it reads."""
    folder = tmp_path_factory.mktemp("page")
    write_jsonl(folder / "train.jsonl", rows(60, 1))
    write_jsonl(folder / "test.jsonl", rows(30, 2))
    tasks = {
        LONG: {**RECIPE["tasks"]["intent"], "head": {"layers": "mix"}},
        "places": RECIPE["tasks"]["places"],
    }
    keys = {"weights": {"method": "uncertainty", "cosine": "encoder"}, "budget": {"steps": 24, "evaluations": 4}}
    recipe = {**RECIPE, **keys, "tasks": tasks, "trackers": [], "few_rows": 0}
    (folder / "desk.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    fit(folder / "desk.yaml", folder, folder / "desk.run", quiet=True)
    export(folder / "desk.run", folder / "desk")
    said: list[str] = []
    evaluate(folder / "desk", folder, print_line=said.append)
    assert not said, "every section and drawing was made"
    return folder / "desk.run" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserThread]:
    with browser_thread() as opened:
        yield opened


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (390, "dark")])
async def test_what_a_joint_training_shows_fits_the_screen_without_an_error(
    desk: Path, browser: BrowserThread, width: int, colours: str
) -> None:
    def look(page: Any) -> dict[str, Any]:
        sections = {name: page.locator(f"section#{name}").count() for name in DRAWINGS}
        found = {"sections": sections, "drawn": page.evaluate(DRAWN), "overflowing": page.evaluate(OVERFLOWING)}
        found["wider"] = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found["ground"] = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        page.emulate_media(media="print")
        page.set_viewport_size(A4)
        return found | {"printed": page.evaluate(OVERFLOWING)}

    found = await browser.use(desk.as_uri(), look, viewport={"width": width, "height": 800}, color_scheme=colours)
    assert found["sections"] == dict.fromkeys(DRAWINGS, 1)
    assert {name for names in DRAWINGS.values() for name in names} <= {*found["drawn"]}
    assert min(found["drawn"].values()) > 60, found["drawn"]
    assert (found["overflowing"], found["printed"]) == ([], [])
    assert found["wider"] <= 0
    assert min(found["ground"]) > 200 if colours == "light" else max(found["ground"]) < 60
