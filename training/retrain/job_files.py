"""The files that a job reads more than once: a run that goes on later must find them as they were."""

from collections.abc import Iterator, Mapping
from hashlib import file_digest
from pathlib import Path

from ...runtime.errors import SetupError
from ..data.opening import find_file
from ..mix.corrections import HELDOUT, TRAIN
from ..recipe.job import Job
from ..recipe.keys.tasks import Task
from ..recipe.recipe import load_recipe
from ..run_folders.provenance import digest_data, digest_sources


def digest_files(job: Job) -> dict[str, str]:
    """Return the SHA-256 of old recipe, old data, earlier feedback, further texts and report rows, by path.

    The feedback itself is not among them: the run has a copy.
    """
    found = {str(path): _sha256(path) for path in _files(job)}
    for given in (given for sets in job.gate.reports.values() for given in sets.values()):
        task = Task(train=given.rows, **given.model_dump(exclude={"rows"}, exclude_none=True))
        found |= digest_sources(given.rows, task, Path())
    if job.old is not None and job.old.recipe is not None:
        folder = job.old.folder
        digests = digest_data(load_recipe(job.old.recipe, past=True), folder)
        found |= {str(folder / path): digest for path, digest in digests.items()}
    return dict(sorted(found.items()))


def refuse_changed_files(work: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise SetupError when a file is not as it was when the run began."""
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise SetupError(
            f"{changed[0]}{more}: changed since the run in {work} began, which may have trained on what is now to be "
            "compared on; restore it, or name another folder with --work"
        )


def _files(job: Job) -> Iterator[Path]:
    if job.old is not None:
        yield from [job.old.recipe] if job.old.recipe else []
        for folder in job.old.feedback:
            yield from sorted(path for part in (TRAIN, HELDOUT) for path in folder.glob(f"*{part}"))
    for path in job.hold.texts:
        yield find_file(path.parent, path.name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
