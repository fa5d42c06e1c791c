"""Results are stored under what they depend on: the code of their stage counts, its texts and other stages do not."""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from core.data.template import encode_all
from core.pipeline import analyse as stage
from core.pipeline.cache import code_digest, code_of, libraries, software
from core.robustness.analyse import analyse
from core.training.probe import probe

MAP = [each.__module__ for each in (analyse, probe, encode_all)]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of core that tests may edit, as long as they undo it."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "core", root / "core", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture
def changes_map(copied: Path) -> Callable[[str, str, str], bool]:
    """Whether an edit of one file of core changes what a stored robustness map depends on."""

    def changes(name: str, old: str, new: str) -> bool:
        path = copied / "core" / name
        before, text = code_digest(MAP, alone=[stage.__name__], root=copied), path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        try:
            return code_digest(MAP, alone=[stage.__name__], root=copied) != before
        finally:
            path.write_text(text)

    return changes


@pytest.mark.parametrize(
    "name",
    [
        "robustness/analyse.py",
        "robustness/search.py",
        "lm/generate.py",
        "training/loop.py",
        "schemas/analysis.py",
        "pipeline/analyse.py",
    ],
)
def test_code_that_the_map_uses_changes_its_key(changes_map: Callable[[str, str, str], bool], name: str) -> None:
    assert changes_map(name, "\nfrom ", "\nCHANGED = 1\nfrom ")


@pytest.mark.parametrize(
    "name", ["reports/view.py", "pipeline/train.py", "pipeline/evaluate.py", "gate/decide.py", "orders/check.py"]
)
def test_code_that_the_map_does_not_use_keeps_its_key(changes_map: Callable[[str, str, str], bool], name: str) -> None:
    assert not changes_map(name, "\nfrom ", "\nCHANGED = 1\nfrom ")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("robustness/analyse.py", '"""', '"""Other words. '),
        ("robustness/analyse.py", "def analyse(", "# A comment.\ndef analyse("),
        ("schemas/analysis.py", '\n    """', '\n    """Other words for a field. '),
        ("lm/generate.py", '\n    """', '\n    """Other words for a function. '),
    ],
)
def test_docstrings_and_comments_keep_every_key(
    changes_map: Callable[[str, str, str], bool], name: str, old: str, new: str
) -> None:
    assert not changes_map(name, old, new)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small package whose module `core.a.one` imports `core.b.two` inside a function."""
    for package in ("core", "core/a", "core/b"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "core/a/one.py").write_text("def run():\n    from core.b import two\n    return two.VALUE\n")
    (tmp_path / "core/b/two.py").write_text("VALUE = 1\n")
    (tmp_path / "core/b/words").mkdir()
    (tmp_path / "core/b/words/list.json").write_text("[]")
    (tmp_path / "core/a/unused.py").write_text("VALUE = 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("a/one.py", True),
        ("b/two.py", True),
        ("b/words/list.json", True),
        ("a/__init__.py", True),
        ("b/__init__.py", True),
        ("a/unused.py", False),
        ("a/new.py", False),
    ],
)
def test_imports_are_followed_and_data_files_count(root: Path, name: str, *, counts: bool) -> None:
    before = code_digest(["core.a.one"], root=root)
    (root / "core" / name).write_text("2\n")
    assert (code_digest(["core.a.one"], root=root) != before) == counts


def test_a_module_that_counts_alone_is_not_followed(root: Path) -> None:
    before = code_digest([], alone=["core.a.one"], root=root)
    (root / "core/b/two.py").write_text("VALUE = 2\n")
    assert code_digest([], alone=["core.a.one"], root=root) == before
    (root / "core/a/one.py").write_text("VALUE = 2\n")
    assert code_digest([], alone=["core.a.one"], root=root) != before


def test_the_same_code_has_one_digest_wherever_it_lies(root: Path, tmp_path: Path) -> None:
    before = code_digest(["core.a.one"], root=root)
    (root / "core/a/__pycache__").mkdir()
    (root / "core/a/__pycache__/one.cpython-311.pyc").write_bytes(b"compiled")
    (tmp_path / "elsewhere").mkdir()
    (root / "core").rename(tmp_path / "elsewhere/core")
    assert code_digest(["core.a.one"], root=tmp_path / "elsewhere") == before


def test_a_renamed_module_has_another_digest(root: Path) -> None:
    before = code_digest(["core.b.two"], root=root)
    (root / "core/b/two.py").rename(root / "core/b/three.py")
    assert code_digest(["core.b.three"], root=root) != before


def test_code_outside_core_counts_too() -> None:
    def own() -> None: ...

    assert code_of(analyse, own, caller=stage.__name__) != code_of(analyse, caller=stage.__name__)


def test_software_names_libraries_and_the_code() -> None:
    found = software()
    assert found["torch"] == libraries()["torch"] == version("torch")
    own, _, code = found["securetune"].partition("+")
    assert own == version("securetune")
    assert len(code) == 12
