"""Imports by the names of version 0.1 fail with the new name. Not here: its stored data (test_old_state)."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("from client import SecureTune", "from securetune import SecureTune"),
        ("import core.spec.job", "core.schemas"),
        ("from core.security.judges import Rules", "core.judges"),
        ("from core import arms", "cannot import name 'arms'"),
        ("import core, bench.screening", "research.bench"),
        ("import core, local.up", "securetune.local"),
    ],
)
def test_an_old_import_names_the_new_one(old: str, new: str) -> None:
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert new in done.stderr.splitlines()[-1]


def test_a_module_that_never_was_is_only_missing() -> None:
    done = subprocess.run([sys.executable, "-c", "import core.spectacles"], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'core.spectacles'"
