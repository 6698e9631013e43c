"""What is wrong with a file that people write is said in one line: file, line, key, what was expected."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from murmura.runtime.errors import SetupError
from murmura.runtime.yaml_file import YamlFile


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1


class Machine(BaseModel):
    model_config = ConfigDict(extra="forbid")
    parts: dict[str, Part]


def read(path: Path, text: str | bytes) -> YamlFile[Machine]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return YamlFile(path, Machine, "machine", requires="parts")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("parts:\n  a: {}\n  b: {size: big}\n", ":3: parts.b.size: Input should be a valid integer"),
        ("parts:\n  a: {}\n  b: {}\n  a: {}\n", ":4: parts.a: this key stands here a second time"),
        ("parts:\n  a:\n    length: 2\n", ":3: parts.a.length: unknown key; expected one of size"),
        ("- 1\n", ":1: a machine is a mapping with at least the key `parts`"),
        (b"parts: {\xff: {}}", ": cannot read the machine: it is not UTF-8"),
    ],
)
def test_a_flaw_is_said_with_its_line_and_key(tmp_path, text, says):
    path = tmp_path / "m.yaml"
    with pytest.raises(SetupError) as caught:
        read(path, text)
    assert str(caught.value).startswith(f"{path}{says}")
    assert "\n" not in str(caught.value)


def test_what_is_found_wrong_later_has_its_line_too(tmp_path):
    file = read(tmp_path / "m.yaml", "parts:\n  a: {}\n  b: {size: 3}\n")
    assert file.value.parts["b"].size == 3
    assert str(file.refusal(("parts", "b", "size"), "too big")) == f"{tmp_path / 'm.yaml'}:3: parts.b.size: too big"


def test_aliases_may_repeat_a_mapping_and_even_hold_themselves(tmp_path):
    assert read(tmp_path / "m.yaml", "parts: {a: &same {size: 2}, b: *same}\n").value.parts["b"].size == 2
    with pytest.raises(SetupError):
        read(tmp_path / "m.yaml", "parts: &all {a: *all}\n")
