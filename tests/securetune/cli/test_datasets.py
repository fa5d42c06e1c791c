"""`securetune datasets`: against the real app, by address and key or by the state of a running service."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.config import settings
from securetune.cli.main import app
from securetune.local import Address
from tests.securetune.conftest import Served


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    made = [
        {"prompt": "Indent", "completion": "    return a"},
        {"prompt": "long " * 80, "completion": "lost"},
        {"prompt": "a <|end|> inside", "completion": "no"},
        {"prompt": "cut", "completion": "one two " * 40},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture
def state(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder as the running service leaves it."""
    settings.cache_clear()
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "api-key").write_text(served.key + "\n")
    address = Address(address=served.url, api_key_file=folder / "api-key", state=folder, pid=1)
    (folder / "lock").write_text(address.to_json() + "\n")
    for name in ("SECURETUNE_URL", "SECURETUNE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    settings.cache_clear()


def preview(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(app, ["datasets", "preview", *map(str, arguments)])


def test_a_file_is_uploaded_and_its_trained_parts_are_marked(rows: Path, state: Path) -> None:
    done = preview(rows, "--model", "testbed", "--max-length", 64, "--state", state)
    assert done.exit_code == 0, done.stderr
    for part in (
        "<|user|>Indent<|end|><|assistant|>[[    return a<|end|>]]",
        "Of 4 rows, 2 are trained on",
        "Dropped: 1 row. Rejected: 1 row.",
        "Line 3: The row on line 3 cannot be trained on",
        "Line 2: 64 tokens, 0 trained",
        "so the row is dropped",
        "[rows_truncated]",
    ):
        assert part in done.stdout


def test_a_dataset_is_previewed_by_its_id_from_a_line_on(rows: Path, served: Served, state: Path) -> None:
    dataset = served.behind.upload(rows.read_bytes()).json()["id"]
    options = ("--model", "testbed", "--url", served.url, "--api-key", served.key)
    done = preview(dataset, *options, "--line", 4, "--rows", 1, "--state", state / "unused")
    assert done.exit_code == 0, done.stderr
    assert "Line 4:" in done.stdout
    assert "Line 1:" not in done.stdout


def test_the_page_is_saved(rows: Path, state: Path, tmp_path: Path) -> None:
    page = tmp_path / "preview.html"
    done = preview(rows, "--model", "testbed", "--html", page, "--state", state)
    assert done.stdout == f"Saved {page}.\n"
    assert "Preview of rows.jsonl" in page.read_text()


def test_errors_say_what_to_do(rows: Path, state: Path, tmp_path: Path) -> None:
    unknown = preview(rows, "--model", "other", "--state", state)
    assert unknown.exit_code == 1
    assert "does not allow the base model 'other'" in unknown.stderr
    nowhere = preview(rows, "--model", "testbed", "--state", tmp_path / "empty")
    assert nowhere.exit_code == 1
    assert "Start it with `securetune up`" in nowhere.stderr
    missing = preview(tmp_path / "none.jsonl", "--model", "testbed", "--state", state)
    assert missing.exit_code == 1
    assert "There is no file" in missing.stderr
    assert "none.jsonl, and it is not the id of a dataset (ds_...)." in missing.stderr
