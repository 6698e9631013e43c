"""A desk whose answers are reviewed in the browser: its topics, its requests, and the page of the review queue."""

from typing import Any

from serving import Desk

TEXTS = ["my card was lost", "i want a new card please", "transfer money", "help me", "a new one", "please help"]


async def make_desk(kafka: str, make_topics: Any, prefix: str, model: Any) -> Desk:
    names = ("requests", "classified", "analysed", "deadletters", "reviews", "feedback")
    await make_topics(*names, prefix=prefix, partitions=2)
    return Desk(kafka, prefix, model)


async def answer_requests(desk: Desk, reviews: int, texts: list[str] = TEXTS) -> None:
    """Let the tiny model answer texts; all answers are doubtful."""
    async with desk.serving(desk.agents[:1], reviews={"per_minute": 6000, "margin": 1.0}):
        await desk.send(*[{"text": text} for text in texts])
        await desk.read(desk.classified, len(texts))
        await desk.read(f"{desk.prefix}.reviews", reviews)


def wait_for_item(page: Any) -> str:
    """Load the page until a text is there; return its key."""
    for _ in range(60):
        if page.locator("#review-item form.review").count():
            return str(page.locator("#review-item form.review").get_attribute("data-item"))
        page.wait_for_timeout(500)
        page.reload()
    raise AssertionError(f"no text came: {page.locator('main').inner_text()}")
