"""What is wrong with a file that people write is said in one line: file, line, key, what was expected."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from murmura.runtime.errors import SetupError
from murmura.runtime.settings import yaml_file
from murmura.runtime.settings.yaml_file import YamlFile, read_yaml


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
        ("parts:\n  a: {}\n  b: {}\n  a: {}\n", ":4: parts.a: this key is a duplicate"),
        ("parts:\n  a:\n    length: 2\n", ":3: parts.a.length: unknown key; expected one of size"),
        ("- 1\n", ":1: a machine is a mapping with at least the key `parts`"),
        ("parts:\n  a: {size: 2024-13-45}\n", ":2: parts.a.size: looks like a timestamp and is none; put it in quotes"),
        (f"parts:\n  a: {{size: 1{'0' * 5000}}}\n", ":2: parts.a.size: looks like an int"),
        (f"parts:\n  a: {{size: 0x{'f' * 5000}}}\n", ":2: parts.a.size: looks like an int"),
        ("parts:\n  a: !!bool maybe\n", ":2: parts.a: looks like a bool"),
        ("parts:\n  a: " + "[" * 3000, ":2: nested deeper than 50 levels"),
        ("parts:\n  a: " + "{a: " * 3000, ":2: nested deeper than 50 levels"),
        ('parts: {"a\\nb": {}, "a\\nb": {}}\n', ":1: parts.'a\\nb': this key is a duplicate"),
        ('parts: {"a\\nb": {size: big}}\n', ":1: parts.'a\\nb'.size: Input should be"),
        ("parts: {}\n---\nparts: {}\n", ":2: not YAML: but found another document"),
        (b"parts: {\xff: {}}", ": cannot read the machine: it is not UTF-8"),
    ],
)
def test_a_flaw_is_said_with_its_line_and_key(tmp_path, text, says):
    path = tmp_path / "m.yaml"
    with pytest.raises(SetupError) as caught:
        read(path, text)
    assert str(caught.value).startswith(f"{path}{says}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a: {b: [1, 2.5, 1e3, 0x1f, 0o17, 017], c: ~}\n'd': \"\\u00e9\\n\"\n",
        "a: &a {b: 1, c: yes}\nd:\n  <<: *a\n  e: [*a, on, No]\n",
        "a: |\n  two\n  lines\n\nb: >-\n  one\n  line\nc: 2024-01-31\nd: 2024-01-31T10:00:00Z\n",
        "a:\r\n- b: 'it''s'\r\n# comment\r\n- ? c\r\n  : d\r\n",
        "\ufeffa: \U0001f600 é\nb: {c: http://d:80/e, f:g}\n",
        "a: !!str 12\nb: !!float 1\nc: .inf\nd: 190:20:30\ne: 1_000\n",
    ],
)
def test_the_parser_in_c_reads_what_the_one_in_python_reads(text, monkeypatch):
    def flat(node: yaml.Node | None) -> object:
        if not isinstance(node, yaml.CollectionNode):
            return node and (node.tag, node.value, node.start_mark.line)
        inner = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        return (node.tag, node.start_mark.line, [flat(part) for part in inner])

    tree, value = read_yaml(text)
    monkeypatch.setattr(yaml_file, "FAST_LOADER", yaml.SafeLoader)
    expected, same = read_yaml(text)
    assert (flat(tree), value) == (flat(expected), same)


def test_mappings_may_be_merged(tmp_path):
    assert read(tmp_path / "m.yaml", "parts:\n  a: &a {size: 2}\n  b: {<<: *a}\n").value.parts["b"].size == 2


def test_what_is_found_wrong_later_has_its_line_too(tmp_path):
    file = read(tmp_path / "m.yaml", "parts:\n  a: {}\n  b: {size: 3}\n")
    assert file.value.parts["b"].size == 3
    assert str(file.refusal(("parts", "b", "size"), "too big")) == f"{tmp_path / 'm.yaml'}:3: parts.b.size: too big"


def test_aliases_may_repeat_a_mapping_and_even_hold_themselves(tmp_path):
    assert read(tmp_path / "m.yaml", "parts: {a: &same {size: 2}, b: *same}\n").value.parts["b"].size == 2
    with pytest.raises(SetupError):
        read(tmp_path / "m.yaml", "parts: &all {a: *all}\n")
