"""Labels of training rows that are probably wrong."""

from collections import Counter

from ..page_data import PageData
from ..section import Section, render

_MOST_PAIRS = 10


def make_label_errors(page: PageData) -> Section | None:
    """Return counts by task, and the rows only where the page may show them."""
    tasks = [
        {
            "name": name,
            "rows": each.rows,
            "found": each.found,
            "pairs": Counter((error.given, error.answered) for error in each.errors).most_common(_MOST_PAIRS),
            "unjudged": each.unjudged,
            "errors": each.errors if page.with_texts else [],
            "with_texts": any(error.text for error in each.errors),
        }
        for name, each in page.label_errors.items()
        if not each.reason
    ]
    if not tasks:
        return None
    return Section("label-errors", "Labels that may be wrong", render("label_errors.html", tasks=tasks))
