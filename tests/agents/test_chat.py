"""`murmura chat` refuses at once what the agent would refuse; a whole talk is in `tests/integration/test_dialogue.py`."""

import pytest
from cli_in_process import refused_here


@pytest.mark.parametrize(
    ("name", "says"),
    [("x" * 257, "the id has 257 bytes, 1 to 256 are one"), ("", "the id has 0 bytes"), ("é" * 129, "the id has 258 bytes"),
     ("\udcff", "the id is not UTF-8")],
)  # fmt: skip
def test_an_id_that_no_conversation_can_have_is_refused_before_anything_is_asked_of_a_broker(name, says):
    said = refused_here("chat", "--conversation", name, "--bootstrap", "127.0.0.1:1")
    assert said.startswith("murmura: --conversation: ")
    assert says in said
