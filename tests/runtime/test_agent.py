"""What an agent's declaration refuses, at once instead of at every record."""

import pytest

from murmura.runtime.agent.agent import agent
from murmura.runtime.errors import SetupError


def decide(request, prediction):
    return None


async def awaits(request, prediction):
    return None


@pytest.mark.parametrize(
    ("declaration", "function", "said"),
    [
        ({"topics": "shop.reviews"}, decide, r"expected a list, topics=\['shop.reviews'\]"),
        ({"topics": ["a"], "tasks": "mood"}, decide, r"expected a list, tasks=\['mood'\]"),
        ({"topics": []}, decide, "it reads no topic"),
        ({"topics": ["a"], "output": "a"}, decide, "output topic a is one of its input topics"),
        ({"topics": ["a"], "name": "two words"}, decide, "use letters, digits, - and _"),
        ({"topics": ["a"]}, awaits, "is an async function, expected a plain one"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_where_it_stands(declaration, function, said):
    with pytest.raises(SetupError, match=said):
        agent(**declaration)(function)
