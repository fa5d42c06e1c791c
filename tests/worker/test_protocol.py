"""What worker and training process say to each other survives the way, and nothing else gets through."""

import json

import pytest

from core.schemas.events import Figures, JobError, Metrics, Progress, StageFinished, StageStarted, Warned
from core.schemas.results import Outcome, StoredFile
from tests.worker.helpers import order
from tests.worker.scripted import figure
from worker.protocol import (
    Failed,
    Message,
    ProtocolError,
    Ready,
    Stopped,
    Succeeded,
    decode,
    decode_order,
    encode,
)

FILE = StoredFile(name="a/b.json", key="jobs/b", sha256="0" * 64, bytes=1, media_type="application/json", gated=False)
WORDS: list[Message] = [
    Ready(),
    Progress(stage="training", run=None, fraction=0.5, message="line one\nline two"),
    StageStarted(stage="before"),
    StageFinished(stage="after", run="ml_lr", seconds=1.5, reused=True),
    Metrics(run="ml_lr", step=1, total_steps=2, loss=0.1, learning_rate=1e-5),
    Figures(figures=(figure(),)),
    Warned(code="prompts_too_long", message="Zwei Zeilen für „später“ \u2028 \U0001f600"),
    Succeeded(outcome=Outcome(artifacts=(FILE,))),
    Failed(error=JobError(code="cuda_oom", message="Too large.", param="training.batch_size")),
    Stopped(),
]


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.type)
def test_a_word_is_one_line_and_comes_back(word: Message) -> None:
    line = encode(word)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == word


def test_an_order_is_one_line_and_comes_back() -> None:
    line = encode(order())
    assert line.count(b"\n") == 1
    assert decode_order(line) == order()


def test_an_order_fits_into_a_pipe() -> None:
    assert len(encode(order())) < 65536


def test_a_character_that_no_database_stores_is_replaced() -> None:
    word = decode(encode(Warned(code="odd", message="before\x00after")))
    assert word == Warned(code="odd", message="before\ufffdafter")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"Loading weights: 100%\n",
        b'{"type": "succeeded"}\n',
        b'{"type": "deploy"}\n',
        b'{"type": "status", "status": "running", "message": ""}\n',
        b'{"type": "ready", "extra": 1}\n',
        b'{"type": "metrics", "arm": "a", "step": 1, "total_steps": 1, "loss": NaN, "learning_rate": 1}\n',
        b'{"type": "progress", "stage": "training", "fraction": 2, "message": ""}\n',
        b"\xff\xfe\n",
        json.dumps({"type": "failed", "error": {"code": "x", "message": "y"}})[:-2].encode(),
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


def test_what_is_no_order_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode_order(b"stop\n")
