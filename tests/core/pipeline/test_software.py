"""Versions name the code as well: a change of it, of a name or of the prompts beside it is another version."""

from importlib.metadata import version
from pathlib import Path

import pytest

from core.pipeline.software import code_digest, software


def test_software_names_libraries_and_the_code() -> None:
    found = software()
    assert found["torch"] == version("torch")
    own, _, code = found["securetune"].partition("+")
    assert own == version("securetune")
    assert len(code) == 12


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "core"
    (folder / "security").mkdir(parents=True)
    (folder / "security" / "judge.py").write_text("RULES = 1\n")
    (folder / "security" / "prompts.json").write_text("[]\n")
    return folder


def test_the_same_code_has_one_digest_wherever_it_lies(code: Path, tmp_path: Path) -> None:
    before = code_digest(code)
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "judge.cpython-311.pyc").write_bytes(b"compiled")
    assert code_digest(code.rename(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize("name", ["security/judge.py", "security/prompts.json"])
def test_changed_code_has_another(code: Path, name: str) -> None:
    before = code_digest(code)
    (code / name).write_text("2\n")
    assert code_digest(code) != before


def test_a_renamed_file_has_another(code: Path) -> None:
    before = code_digest(code)
    (code / "security" / "judge.py").rename(code / "security" / "rules.py")
    assert code_digest(code) != before
