"""Prompt sets by name: valid choices of a job, and valid entries of the server's list."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from core.schemas.prompts import Behaviour, ChosenPrompts, HubFileSource, PromptSetEntry, PromptSource, is_uploaded

ID = "ps_" + "0" * 24
SOURCE: TypeAdapter[PromptSource] = TypeAdapter(PromptSource)


def test_the_context_precedes_the_request() -> None:
    assert Behaviour(text="Shorten it.").full_text == "Shorten it."
    assert Behaviour(text="Shorten it.", context="A text.").full_text == "A text.\n\nShorten it."


def test_a_job_chooses_sets_by_use() -> None:
    assert ChosenPrompts().named == {}
    assert ChosenPrompts(safe="xstest").named == {"safe": "xstest"}
    assert ChosenPrompts(harmful=ID, safe="xstest").named == {"harmful": ID, "safe": "xstest"}
    assert is_uploaded(ID)
    assert not is_uploaded("xstest")


@pytest.mark.parametrize("said", ["auto", "builtin", {}, {"harmful": ID}, {"harmful": "a", "safe": None}])
def test_valid_prompt_sources(said: str | dict[str, Any]) -> None:
    found = SOURCE.validate_python(said)
    assert SOURCE.validate_json(SOURCE.dump_json(found)) == found


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("/etc/passwd", ("word",)),
        ("AdvBench", ("word",)),
        (3, ("sets",)),
        (None, ("sets",)),
        ({"harmful": "../up"}, ("sets", "harmful")),
        ({"harmful": ""}, ("sets", "harmful")),
        ({"safe": "x\n"}, ("sets", "safe")),
        ({"path": "x"}, ("sets", "path")),
    ],
)
def test_other_prompt_sources_are_rejected_with_one_error(said: object, place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        SOURCE.validate_python(said)
    assert [error["loc"] for error in caught.value.errors()] == [place]


@pytest.mark.parametrize("name", [ID, "ps_mine", "a/b", "", "x" * 129, "-x"])
def test_invalid_names_of_listed_sets(name: str) -> None:
    with pytest.raises(ValidationError):
        PromptSetEntry.model_validate({"name": name, "source": {"kind": "file", "path": "/x"}, "layout": "plain"})


@pytest.mark.parametrize("file", ["set.csv", "data/set.jsonl", "a-b/c_d/e.f.json"])
def test_files_of_the_hub(file: str) -> None:
    assert HubFileSource(id="org/set", revision="a" * 40, file=file).file == file


@pytest.mark.parametrize("file", ["set.py", "../set.csv", "/set.csv", "a//b.csv", "a/../b.csv", ".csv", "set.csv\n"])
def test_invalid_files_of_the_hub(file: str) -> None:
    with pytest.raises(ValidationError):
        HubFileSource(id="org/set", revision="a" * 40, file=file)
