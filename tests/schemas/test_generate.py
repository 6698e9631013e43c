"""The committed JSON Schemas: what the models give now, true for real records, and never broken by a rewrite."""

import json
import shutil

import jsonschema
import pytest
from pydantic import BaseModel

from murmura.schemas import generate


@pytest.fixture
def folder(tmp_path):
    for name in generate.MODELS:
        shutil.copy(generate.HERE / f"{name}.json", tmp_path)
    return tmp_path


def rewrite(folder, name, change):
    path = folder / f"{name}.json"
    schema = json.loads(path.read_text())
    change(schema)
    path.write_text(json.dumps(schema))
    return path


def test_the_committed_schemas_are_what_the_models_give():
    assert generate.outdated(generate.HERE) == []
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("name", generate.MODELS)
def test_a_schema_is_valid_itself(name):
    jsonschema.Draft202012Validator.check_schema(generate.schema_of(name))


def test_a_compatible_change_is_written(folder, capsys):
    """The committed schema lacks a field that the model has, with a default."""
    rewrite(folder, "request.v1", lambda schema: schema["properties"].pop("metadata"))
    assert generate.main(["--check", "--folder", str(folder)]) == 1
    assert generate.main(["--folder", str(folder)]) == 0
    assert "wrote request.v1" in capsys.readouterr().out
    assert generate.outdated(folder) == []


def test_an_incompatible_change_is_refused_and_nothing_is_written(folder, capsys):
    """The committed schema promises a field that the model does not have."""
    path = rewrite(folder, "result.v1", lambda schema: schema["properties"].update(language={"type": "string"}))
    before = path.read_text()
    assert generate.main(["--folder", str(folder)]) == 1
    assert "result.v1 $.language: removed or renamed" in capsys.readouterr().out
    assert path.read_text() == before


def test_a_new_type_is_written_into_an_empty_folder(tmp_path, monkeypatch):
    class Note(BaseModel):
        text: str

    monkeypatch.setattr(generate, "MODELS", {"note.v1": Note})
    assert generate.write(tmp_path) == ["note.v1"]
    assert json.loads((tmp_path / "note.v1.json").read_text())["required"] == ["text"]


def test_check_names_what_is_missing_and_writes_nothing(tmp_path, capsys):
    assert generate.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "request.v1" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
