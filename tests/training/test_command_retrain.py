"""The command: four exit codes, and a last line that says what came of it."""

import sys

import pytest
from tiny_loop import write_corrections, write_job
from tiny_training import rows, write_jsonl

from murmura.runtime.cli import main as cli
from murmura.training.retrain.preview import preview


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `murmura retrain ...`; returns exit code, standard output and standard error."""

    def main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["murmura", "retrain", *arguments, "--quiet"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return main


def test_a_version_that_is_pushed_ends_with_0_and_once_more_it_says_that_it_was(desk_base, tmp_path, run):
    write_corrections(tmp_path / "corrections")
    job = write_job(tmp_path, desk_base)
    code, out, _ = run(str(job))
    assert code == 0
    assert "intent (feedback): 0.0 -> " in out
    assert out.splitlines()[-1] == f"report: {tmp_path}/job.run/gate/gate.md"
    code, out, _ = run(str(job))
    assert code == 0
    assert out.splitlines()[-1] == (
        "this job was finished before: it pushed desk 1; to run it anew, name another folder with --work"
    )
    assert not [line for line in out.splitlines() if line.startswith("fit:")]


def test_a_refusal_of_the_gate_ends_with_1(desk_base, tmp_path, run):
    write_corrections(tmp_path / "corrections")
    # What is held out as a loan is none, so that nothing can be shown to have been learned.
    others = [
        {"text": f"{row['text']} {n}", "label": "loan"} for n, row in enumerate(rows(90, 9)) if row["label"] == "lost"
    ]
    write_jsonl(tmp_path / "corrections" / "intent.heldout.jsonl", others)
    job = write_job(tmp_path, desk_base)
    code, _, err = run(str(job))
    assert code == 1
    assert err.startswith("murmura: the gate refused the candidate: intent (feedback, new labels) is not ")
    assert len(err.splitlines()) == 1
    again = run(str(job))
    assert (again[0], again[2]) == (1, err)


def test_a_mistake_ends_with_2(desk_base, tmp_path, run):
    code, _, err = run(str(write_job(tmp_path, desk_base)))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"murmura: {tmp_path}/job.yaml:")


def test_too_little_feedback_ends_with_3_also_in_a_dry_run(desk_base, tmp_path, run):
    write_corrections(tmp_path / "corrections", heldout=9)
    job = str(write_job(tmp_path, desk_base))
    for arguments in ([job], [job, "--dry-run"]):
        code, _, err = run(*arguments)
        assert code == 3
        assert len(err.splitlines()) == 1
        assert err.startswith(f"murmura: {tmp_path}/job.yaml:")
        assert "no task could be shown to become better" in err


def test_no_feedback_at_all_ends_with_3(desk_base, tmp_path, run):
    write_corrections(tmp_path / "corrections", train=0)
    code, _, err = run(str(write_job(tmp_path, desk_base)))
    assert code == 3
    assert "no TASK.train.jsonl with rows that can be learned" in err


def test_stages_are_announced_on_a_terminal_only(desk_base, tmp_path):
    from murmura.training.retrain.run import retrain

    write_corrections(tmp_path / "corrections")
    begun: list[str] = []
    retrain(write_job(tmp_path, desk_base), tmp_path / "work", quiet=True, begins=begun.append)
    assert begun[:4] == ["current", "data", "mix", "fit"]
    assert "push nothing" not in list(preview(write_job(tmp_path, desk_base)))
