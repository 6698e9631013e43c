"""The folder of a run: whose it is, what is done in it, and what a changed job means."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from murmura.runtime.errors import SetupError
from murmura.training.retrain import work_folder
from murmura.training.retrain.work_folder import WorkFolder


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text("one")
    return path


def finish(folder: WorkFolder, *stages: str) -> None:
    for stage in stages:
        folder.take(stage, lambda path: {"said": path.name})


def test_a_second_process_is_told_who_is_at_work(job: Path, tmp_path: Path):
    command = "import sys; from pathlib import Path; from murmura.training.retrain.work_folder import WorkFolder\n"
    command += "with WorkFolder(Path(sys.argv[1]), Path(sys.argv[2])): pass"
    arguments = [sys.executable, "-c", command, str(tmp_path / "work"), str(job)]
    with WorkFolder(tmp_path / "work", job):
        refused = subprocess.run(arguments, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "is at work in it; wait for its end or name another --work" in refused.stderr
    assert "process " in refused.stderr
    assert subprocess.run(arguments).returncode == 0


def test_a_file_system_without_locks_is_not_taken_for_another_process(job: Path, tmp_path: Path, monkeypatch):
    def none(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(work_folder.fcntl, "flock", none)
    with (
        pytest.raises(
            SetupError, match=r"work: cannot be locked \(No locks available\); name a --work on a file system"
        ),
        WorkFolder(tmp_path / "work", job),
    ):
        pass


def test_the_draft_of_a_run_that_was_killed_at_once_locks_nobody_out(job: Path, tmp_path: Path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".job.json.part").write_text("{")
    with WorkFolder(tmp_path / "work", job) as folder:
        assert folder.run


def test_a_folder_with_something_else_in_it_is_refused(job: Path, tmp_path: Path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "letters.txt").write_text("dear")
    with pytest.raises(SetupError, match="not empty and not the folder of a retraining"):
        WorkFolder(tmp_path / "work", job)


def test_a_job_corrected_before_it_was_trained_begins_anew_in_the_same_folder(job: Path, tmp_path: Path):
    with WorkFolder(tmp_path / "work", job) as first:
        finish(first, "current", "data")
    job.write_text("two")
    assert not WorkFolder(tmp_path / "work", job).goes_on(["current"])
    with WorkFolder(tmp_path / "work", job) as second:
        assert second.run != first.run
        assert second.facts("current") is None
    assert json.loads((tmp_path / "work" / "job.json").read_text())["run"] == second.run


def test_a_stage_that_was_interrupted_begins_empty_unless_it_resumes(job: Path, tmp_path: Path):
    def fail(path: Path):
        (path / "half").write_text("x")
        raise KeyboardInterrupt

    def look(path: Path):
        return {"found": [each.name for each in path.iterdir()]}

    with WorkFolder(tmp_path / "work", job) as folder:
        for stage in ("mix", "fit"):
            with pytest.raises(KeyboardInterrupt):
                folder.take(stage, fail)
        assert folder.take("mix", look)["found"] == []
        assert folder.take("fit", look, resumes=True)["found"] == ["half"]


def test_a_corrected_job_does_not_resume_what_another_one_left(job: Path, tmp_path: Path):
    with WorkFolder(tmp_path / "work", job) as first:
        finish(first, "current")
        with pytest.raises(KeyboardInterrupt):
            first.take("fit", lambda path: (_ for _ in ()).throw(KeyboardInterrupt), resumes=True)
        assert (tmp_path / "work" / "fit").is_dir()
    job.write_text("two")
    with WorkFolder(tmp_path / "work", job):
        assert not (tmp_path / "work" / "fit").exists()


def test_a_job_changed_after_it_was_trained_is_another_job(job: Path, tmp_path: Path):
    with WorkFolder(tmp_path / "work", job) as folder:
        finish(folder, "current", "data", "mix", "fit")
    job.write_text("two")
    with pytest.raises(SetupError, match=r"begun with another job\.yaml, and trained; name another folder"):
        WorkFolder(tmp_path / "work", job)


def make_old(work: Path) -> None:
    """Leave the folder as versions did that wrote no layout."""
    known = json.loads((work / "job.json").read_text())
    del known["layout"]
    (work / "job.json").write_text(json.dumps(known))


def test_a_run_that_another_version_trained_is_one_line_that_says_what_to_do(job: Path, tmp_path: Path):
    with WorkFolder(tmp_path / "work", job) as folder:
        finish(folder, "current", "data", "mix", "fit", "export")
    make_old(tmp_path / "work")
    with pytest.raises(SetupError, match=r"trained by another version of Murmura.*another folder with --work"):
        WorkFolder(tmp_path / "work", job)


def test_a_run_that_another_version_began_and_did_not_train_begins_anew(job: Path, tmp_path: Path):
    with WorkFolder(tmp_path / "work", job) as first:
        finish(first, "current", "data", "mix")
    make_old(tmp_path / "work")
    assert not WorkFolder(tmp_path / "work", job).goes_on(["current"])
    with WorkFolder(tmp_path / "work", job) as second:
        assert second.run != first.run
        assert second.facts("mix") is None
