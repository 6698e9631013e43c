"""The analysis agent: entities with their place in the text, and its sentiment, in one result.

python examples/e02_analysis.py
"""

import asyncio
import sys

from e01_classification import ask, model_folder

from murmura.agents import analysis
from murmura.runtime.errors import SetupError
from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.runtime.observe import logs

TEXTS = [
    "I sent £40 to Maria Lopez on Monday and she never got it",
    "a charge of 12.99 from Parkside Gym keeps coming back, this is so annoying",
    "thanks for the quick help yesterday at 3 pm!",
]


async def main() -> None:
    model = Model.load(resolve(model_folder()))
    for text, result in zip(TEXTS, await ask(analysis.agent, TEXTS, model), strict=True):
        print(text)
        for task, output in result["outputs"].items():
            if output["kind"] == "tagging":
                for span in output["spans"]:
                    # Offsets count characters of the text that was sent: it can be sliced with them.
                    assert text[span["start"] : span["end"]] == span["text"]
                    print(f"    {span['start']:>3}-{span['end']:<3} {span['label']}: {span['text']}")
            else:
                print(f"    {task}: {output['label'] or 'not sure'} ({output['score']:.2f})")


if __name__ == "__main__":
    logs.configure("warning")
    try:
        asyncio.run(main())
    except SetupError as error:
        sys.exit(str(error))
