"""Every shell block and Python example in README and docs is run against a running service.

Not run: `make` targets (checked with `make -n`), containers (tests/test_containers.py), and commands that start
long-running processes (tests/securetune/local/test_up.py).
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.schemas.policy import Policy
from tests.docs.conftest import TINY, Served

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PLACEHOLDER = re.compile(r"^export [A-Z]+=\w+_\.\.\..*$|^export URL=.*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"^(docker |uvicorn |celery |printf 'POSTGRES|pip install pre-commit)")
_PRELUDE = """set -euo pipefail
curl() { command curl --fail-with-body --max-time 60 "$@" || case "$*" in */cancel | */repair) ;; *) return 1 ;; esac; }
"""
_JOB_IN_PYTHON = '"compare": [{"kind": "uniform"}]}'


def blocks(path: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(path.read_text(encoding="utf-8")) if kind == language]


def commands(path: Path) -> str:
    """The shell commands of a page, without placeholders that a reader fills in and commands tested elsewhere."""
    lines = _PLACEHOLDER.sub("", "\n".join(blocks(path, "sh"))).splitlines()
    return "\n".join(re.sub(r"^make ", "make -n ", line) for line in lines if not _ELSEWHERE.match(line))


def with_commands() -> list[Path]:
    return [path for path in PAGES if commands(path).strip()]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the docs use curl")
@pytest.mark.parametrize("path", with_commands(), ids=lambda path: path.stem)
def test_every_shell_command_succeeds(path: Path, served: Served, tmp_path: Path) -> None:
    for name in ("testbed", "Makefile", "pyproject.toml", "constraints"):
        (tmp_path / name).symlink_to(ROOT / name)
    env = os.environ | served.variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["bash", "-c", _PRELUDE + commands(path)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        served.officer.set_policy(Policy())
        for job in served.client.jobs():
            if job.status in ("queued", "running"):
                served.client.cancel(job.id)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=lambda path: path.stem)
def test_the_python_example_runs(
    path: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "testbed" / "data" / "instructions.jsonl", "whole.jsonl")
    Path("rows.jsonl").write_text("".join(Path("whole.jsonl").read_text().splitlines(keepends=True)[:24]))
    for text in blocks(path, "python"):
        program = text.replace("http://127.0.0.1:8000", served.variables["URL"])
        assert _JOB_IN_PYTHON in program, "the example creates a job, which this test makes smaller"
        program = program.replace(_JOB_IN_PYTHON, "**tiny}")
        exec(compile(program, path.name, "exec"), {"key": served.variables["KEY"], "tiny": TINY})  # noqa: S102
    assert "gate" in capsys.readouterr().out.lower() or Path("adapter").is_dir()


def test_every_module_in_the_docs_exists() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    named = set(re.findall(r"python -m ([\w.]+)", text))
    assert named
    assert [name for name in named if find_spec(name) is None] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_are_valid(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        headings = there.read_text(encoding="utf-8").splitlines() if there.suffix == ".md" and there.exists() else []
        anchors = {
            re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in headings
            if line.startswith("#")
        }
        if not there.exists() or (anchor and anchor not in anchors):
            broken.append(target)
    assert broken == []
