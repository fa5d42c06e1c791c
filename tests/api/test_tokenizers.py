"""The processes with a tokenizer: bounded in time and number, without secrets, and an error whatever they do."""

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from api import tokenizers
from api.tokenizers import Tokenizers
from core.catalog import TESTBED
from core.errors import Unavailable
from core.schemas.preview import PreviewOrder, PreviewRequest
from core.schemas.tokenizing import TokenizerAnswer

ORDER = PreviewOrder(
    path=Path("/none"),
    columns=None,
    sha256="0" * 64,
    max_rows=1,
    entry=TESTBED,
    request=PreviewRequest(model="testbed"),
)
Play = Callable[[str], None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run a program in place of the real process."""

    def replace(program: str) -> None:
        monkeypatch.setattr(tokenizers, "_COMMAND", (sys.executable, "-c", program))

    return replace


def code(tokenizers: Tokenizers) -> str:
    with pytest.raises(Unavailable) as caught:
        tokenizers.preview(ORDER)
    return caught.value.code


def test_a_preview_that_takes_too_long_is_stopped(play: Play, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    play(f"import os, time, pathlib; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)")
    assert code(Tokenizers(seconds=2)) == "preview_too_slow"
    assert not Path("/proc", pid.read_text()).exists()


@pytest.mark.parametrize("program", ["import sys; sys.exit('boom')", "print('{}')", "print('no JSON')", "pass"])
def test_a_process_that_fails_is_an_error(play: Play, program: str) -> None:
    play(program)
    assert code(Tokenizers()) == "preview_failed"


def test_secrets_do_not_reach_the_process(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "SECURETUNE_JUDGE_BIG"):
        monkeypatch.setenv(name, "secret")
    play(
        "import os, json; found = 'secret' in os.environ.values();"
        "print(json.dumps({'failed': {'unavailable': True, 'code': f'leaked_{found}', 'message': '', 'param': None}}))"
    )
    assert code(Tokenizers()) == "leaked_False"


def test_few_run_at_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = Event(), Event()

    def hang(_: Tokenizers, _what: str, _order: PreviewOrder) -> TokenizerAnswer:
        started.set()
        assert ended.wait(20)
        raise Unavailable("done", code="done")

    monkeypatch.setattr(Tokenizers, "_run", hang)
    both = Tokenizers(at_once=1)
    codes: list[str] = []
    thread = Thread(target=lambda: codes.append(code(both)))
    thread.start()
    assert started.wait(20)
    assert code(both) == "preview_busy"
    ended.set()
    thread.join(20)
    assert codes == ["done"]
    assert code(both) == "done"  # the place is free again
