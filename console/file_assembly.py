"""The console on a file: the review queue alone, without Kafka."""

from pathlib import Path

from ..runtime.errors import SetupError
from ..runtime.settings.settings import Settings
from .assembly import Console
from .reading.follower import Follower
from .review.file_reviews import FileReviews
from .review.screen import ReviewScreen, read_guidelines
from .web.application import make_application
from .web.pages import Pages
from .web.screens import Screen


def assemble_file(settings: Settings, path: Path, task: str | None = None) -> Console:
    """Return a console that fills in the labels of a file. Raises SetupError."""
    if settings.model.folder is None:
        raise SetupError("--file needs --model FOLDER: its labels are what may be answered")
    reviews = FileReviews(path, settings.model.folder, task)
    screens: list[Screen] = []
    pages = Pages(screens, settings.console.masked)
    guidelines = read_guidelines(settings.console.guidelines)
    screens.append(ReviewScreen(reviews.desk, pages, reviews.facts, guidelines).screen())
    application = make_application(screens, pages, settings.console)
    return Console(application, screens, Follower(settings.kafka, []), [reviews.run])
