"""The worker's end of the pipes to a training process: start it, hand it an order, hear it, end it and all it started.

The process handles data and models that nobody vouches for, so it gets a session and an environment of its own: what is
not on the list below does not reach it, above all DATABASE_URL and REDIS_URL.
Not here: when to do what (worker.supervisor), what the lines mean (worker.protocol).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO

from core.schemas.events import Progress
from worker.logs import AttemptLog
from worker.protocol import LINE_LIMIT, STOP, Order, ProtocolError, Word, decode, encode

TRAINING = (sys.executable, "-m", "worker.process")
"""The command of the real training process."""

_ROOT = Path(__file__).parents[1]
_QUEUED_WORDS = 256
_CLOSE_SECONDS = 2.0
_NAMES = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "HUGGING_FACE_HUB_TOKEN", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}  # fmt: skip
_PREFIXES = (
    "LC_", "LD_", "XDG_", "SSL_", "PYTHON", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH", "PYTORCH_", "OMP_", "MKL_",
    "OPENBLAS_", "CUDA", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "TRITON_", "VLLM_", "SECURETUNE_JUDGE_",
)  # fmt: skip


@dataclass(frozen=True)
class Gone:
    """The process has ended; it says no more."""

    status: int
    """Exit status; a signal's number with a minus."""


def environment(full: Mapping[str, str]) -> dict[str, str]:
    """What of the worker's environment a training process gets. Secrets in it: the hub token, and keys of judges."""
    needed = {name: value for name, value in full.items() if name in _NAMES or name.startswith(_PREFIXES)}
    # Nobody watches the log; and idle OpenMP threads that spin make torch many times slower on a machine that is busy.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | needed | {"TQDM_DISABLE": "1"}


class TrainingProcess:
    """One process for one attempt, warm before it has an order. Three threads read its pipes and wait for its end."""

    def __init__(self, command: Sequence[str] = TRAINING) -> None:
        self.log = AttemptLog()
        self.progress: Progress | None = None
        self._words: Queue[Word | ProtocolError | Gone] = Queue(_QUEUED_WORDS)
        self._gone: Gone | None = None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(os.environ),
            cwd=_ROOT,
            start_new_session=True,
        )
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None and stdout is not None and stderr is not None  # noqa: S101, PT018 - asked for above
        self._stdin = stdin
        self._threads = [
            threading.Thread(target=work, name=f"process-{self.pid}", daemon=True)
            for work in (lambda: self._hear(stdout), lambda: self._keep_log(stderr), self._reap)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process id, and the id of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def begin(self, order: Order) -> None:
        """Hand over the order. One that is larger than the pipe's buffer waits for a process that is not warm yet."""
        self._write(encode(order))

    def ask_to_stop(self) -> None:
        """Ask it to stop at its next step."""
        self._write(STOP)

    def next_word(self, timeout: float) -> Word | Gone | None:
        """What it says next; None when it says nothing for `timeout` seconds. Progress goes to `progress` instead.

        The queue is short: when it is not read, the process has to wait, and nothing is lost or piles up.

        Raises:
            ProtocolError: it says what is not in the protocol.
        """
        if self._gone is not None:
            return self._gone
        try:
            word = self._words.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(word, ProtocolError):
            raise word
        if isinstance(word, Gone):
            self._gone = word
        return word

    def terminate(self) -> None:
        """SIGTERM to the process and all that it has started."""
        self._signal(signal.SIGTERM)

    def close(self) -> None:
        """Make sure that the process, and all that it has started, is gone, and that its log is complete.

        Closing twice is closing once.
        """
        self._signal(signal.SIGKILL)
        self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        give_up = time.monotonic() + _CLOSE_SECONDS
        while self._gone is None:  # lets go of the thread that waits for room in the queue
            with suppress(ProtocolError):
                self.next_word(0.1)
            if time.monotonic() > give_up:  # something has left the group and holds the pipe
                self._gone = Gone(self._process.returncode)
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))

    def _write(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # it has just died: `next_word` says so
            self._stdin.write(data)
            self._stdin.flush()

    def _signal(self, number: signal.Signals) -> None:
        # macOS says "not permitted" of a group of zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _hear(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(LINE_LIMIT):
                try:
                    word = decode(line)
                except ProtocolError as error:
                    self._words.put(error)
                    self._signal(signal.SIGKILL)
                    continue
                if isinstance(word, Progress):
                    self.progress = word
                else:
                    self._words.put(word)
        self._words.put(Gone(self._process.wait()))

    def _keep_log(self, pipe: IO[bytes]) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 65536):
                self.log.feed(data)

    def _reap(self) -> None:
        """What a dead process leaves running would hold its pipes and its GPU memory."""
        self._process.wait()
        self._signal(signal.SIGKILL)
