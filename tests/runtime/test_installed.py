"""The entry points of installed packages."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest
from installed_package import installed

from murmura.runtime import installed as module
from murmura.runtime.installed import installed_points

GROUPS = ("murmura.agents", "murmura.commands", "murmura.kinds")


def test_one_search_serves_all_groups_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {group: list(entry_points(group=group)) for group in GROUPS}
    module.search_again()
    searches = [entry_points()]
    monkeypatch.setattr(module, "entry_points", searches.pop)
    assert {group: installed_points(group) for group in GROUPS} == expected
    assert not searches  # a second search would have failed
    assert all(expected.values())


def test_a_package_is_found_as_soon_as_it_is_on_the_path_and_no_longer(tmp_path: Path) -> None:
    names = {point.name for point in installed_points("murmura.agents")}
    with installed("shop", tmp_path, {"murmura.agents": {"shop": "shop:agent"}}, tmp_path / "scratch"):
        assert {point.name for point in installed_points("murmura.agents")} == {*names, "shop"}
    assert {point.name for point in installed_points("murmura.agents")} == names
