"""One run makes a folder at a time; and a plan names each topic for one thing."""

import os
import signal
import subprocess
import sys

import pytest

from murmura.runtime.errors import SetupError
from murmura.runtime.settings.settings import KafkaSettings
from murmura.training.ingest.folder import new_folder
from murmura.training.ingest.make import make_plan


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "deep/set") as part:
        (part / "a").write_text("a")
        assert names(tmp_path / "deep") == ["set.part"]
    assert (names(tmp_path / "deep"), names(tmp_path / "deep/set")) == (["set"], ["a"])


def test_nothing_is_left_of_one_that_failed(tmp_path):
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "set") as part:
        (part / "nowhere/a").write_text("a")
    assert names(tmp_path) == []


def test_a_second_one_is_refused_and_harms_the_first_not(tmp_path):
    with new_folder(tmp_path / "set") as part:
        (part / "a").write_text("a")
        with pytest.raises(SetupError, match="being made by another"), new_folder(tmp_path / "set"):
            pass
        assert names(part) == ["a"]
    with pytest.raises(SetupError, match="is there already"), new_folder(tmp_path / "set"):
        pass
    assert names(tmp_path / "set") == ["a"]


def test_what_a_killed_one_left_is_taken_over(tmp_path):
    code = (
        "import sys, time, pathlib; from murmura.training.ingest.folder import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1])) as part:\n"
        "    (part / 'left').mkdir(); (part / 'left/x').touch(); print('there', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "set"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"there\n"
    with pytest.raises(SetupError), new_folder(tmp_path / "set"):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with new_folder(tmp_path / "set") as part:
        assert names(part) == []
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("roles", [("a", "a", "b"), ("a", "b", "a"), ("b", "a", "a")])
async def test_a_topic_in_two_roles_is_refused(roles):
    feedback, results, requests = roles
    with pytest.raises(SetupError, match=r"topic a is named for .* and for "):
        await make_plan(KafkaSettings(), feedback=[feedback], results=[results, "c"], requests=[requests])
