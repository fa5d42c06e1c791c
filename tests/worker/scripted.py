"""A training process for tests: it speaks the real protocol over real pipes, and does what its job says.

The job's system prompt is a JSON list: what the first attempt does, the second, and so on; the last one is repeated.
Started as `python -m tests.worker.scripted`. Not here: any training.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

from core.errors import Interrupted
from core.schemas.evaluation import Figure
from core.schemas.events import Figures, JobError, Metrics, Progress, StageFinished, StageStarted
from core.schemas.gate import GateDecision, GateReason
from core.schemas.job import Assignment, JobSpec
from core.schemas.results import JudgedWeights, Outcome
from core.schemas.security import SecuritySpec
from core.storage import ArtifactStore
from worker.link import Link
from worker.protocol import Failed, Order, Ready, Stopped, Succeeded

ADAPTER = b"the adapter"
WEIGHTS = "a" * 64
"""Digest of the weights, as the script reports it."""
REPORT = b'{"job_id": "job_1", "version": 1}'


def spec(dataset: str, *script: str) -> JobSpec:
    """A job whose attempts do these things."""
    return JobSpec(base_model="testbed", dataset=dataset, security=SecuritySpec(system_prompt=json.dumps(script)))


def figure(value: float = 0.25) -> Figure:
    """A figure as the script reports it."""
    return Figure(
        run="base", suite="direct", metric="attack_success_rate", judge="rules", value=value, n=64, low=0.1, high=0.4
    )


class Actor:
    """Plays one attempt."""

    def __init__(self, link: Link, order: Order) -> None:
        self.link = link
        self.attempt = order.assignment.attempt
        self.job_id = order.assignment.job_id
        self.root = order.store
        self.order = order
        assert isinstance(order.assignment, Assignment)
        self.script: list[str] = json.loads(order.assignment.spec.security.system_prompt or "[]")

    def play(self) -> None:
        """Do what this attempt shall do."""
        parts: dict[str, Callable[[], None]] = {
            "finish": self.finish,
            "wait": self.wait,
            "deaf": self.deaf,
            "crash": self.crash,
            "exit": lambda: os._exit(3),
            "fail": self.fail,
            "garbage": self.garbage,
            "report": self.report,
            "other report": self.other_report,
            "no weights": self.no_weights,
            "print": self.print_and_finish,
            "family": self.family,
            "environment": self.environment,
            "order": self.tell_order,
            "flood": self.flood,
            "twice": self.twice,
            "steal": self.steal,
        }
        part = self.script[min(self.attempt, len(self.script)) - 1]
        try:
            parts[part]()
        except Interrupted:
            self.link.send(Stopped())

    def mark(self, name: str, text: str) -> None:
        """Leave a file for the test, whole."""
        self.root.mkdir(parents=True, exist_ok=True)
        scratch = self.root / f".{name}.{os.getpid()}"
        scratch.write_text(text)
        scratch.replace(self.root / name)

    def begin(self) -> None:
        """What every job says first."""
        self.link.emit(StageStarted(stage="training", run="ml_lr"))
        self.mark(f"pid-{self.attempt}", str(os.getpid()))

    def finish(self) -> None:
        """A whole, quick job."""
        self.begin()
        self.end()

    def end(self) -> None:
        """The rest of a job."""
        for step in range(1, 4):
            self.link.emit(Metrics(run="ml_lr", step=step, total_steps=3, loss=1 / step, learning_rate=1e-3))
            self.link.emit(Progress(stage="training", run="ml_lr", fraction=step / 3, message=f"step {step} of 3"))
        self.link.emit(Figures(figures=(figure(),)))
        self.link.emit(StageFinished(stage="training", run="ml_lr", seconds=0.1, reused=False))
        key = f"jobs/{self.job_id}/{self.attempt}/adapter.bin"
        stored = ArtifactStore(self.root).put(
            key, ADAPTER, name="adapter.bin", media_type="application/octet-stream", gated=True
        )
        self.link.send(Succeeded(outcome=Outcome(artifacts=(stored,))))

    def report(self) -> None:
        """Leaves a report and what the gate decided."""
        self.link.send(Succeeded(outcome=self.outcome()))

    def other_report(self) -> None:
        """Says another digest of its report than that of the file."""
        (file,) = self.outcome().artifacts
        lie = file.model_copy(update={"sha256": "0" * 64})
        self.link.send(Succeeded(outcome=Outcome(artifacts=(lie,))))

    def no_weights(self) -> None:
        """Leaves a decision without the digest of what was decided about."""
        self.link.send(Succeeded(outcome=self.outcome().model_copy(update={"weights": ()})))

    def outcome(self) -> Outcome:
        """A report, quarantined."""
        key = f"jobs/{self.job_id}/{self.attempt}/report.json"
        stored = ArtifactStore(self.root).put(
            key, REPORT, name="report.json", media_type="application/json", gated=False
        )
        reason = GateReason(code="attack_success_too_high", message="Attack success of direct is 75 %.")
        gate = GateDecision(run="ml_lr", outcome="quarantined", reasons=(reason,), checks=(), policy_version=0)
        return Outcome(artifacts=(stored,), gate=gate, weights=(JudgedWeights(sha256=WEIGHTS, gate=gate),))

    def wait(self) -> None:
        """Step after step, until the test leaves the file `release`, or the worker says stop."""
        self.begin()
        step = 0
        while not (self.root / "release").exists():
            step += 1
            self.link.emit(Progress(stage="training", fraction=0.5, message=f"step {step}"))
            time.sleep(0.01)
        self.end()

    def deaf(self) -> None:
        """Hears neither stop nor SIGTERM."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.begin()
        while True:
            time.sleep(1)

    def crash(self) -> None:
        """Dies as native code does."""
        self.begin()
        os.write(2, b"something went very wrong\n")
        os.kill(os.getpid(), signal.SIGSEGV)

    def fail(self) -> None:
        """Says that the job cannot be done."""
        self.link.send(Failed(error=JobError(code="loss_not_finite", message="The loss is not finite.")))

    def garbage(self) -> None:
        """Breaks the protocol."""
        self.link._sink.write(b'{"type": "succeeded"}\n')
        self.link._sink.flush()
        time.sleep(60)

    def print_and_finish(self) -> None:
        """Prints like a careless library, from Python and from a process of its own."""
        print("a line for the log", flush=True)  # noqa: T201
        subprocess.run(["/bin/echo", "another line"], check=True)
        self.finish()

    def family(self) -> None:
        """Starts a process of its own, then waits."""
        child = subprocess.Popen(["/bin/sleep", "1000"])
        self.mark("grandchild", str(child.pid))
        self.wait()

    def environment(self) -> None:
        """Tells what it can see."""
        self.mark("environment", json.dumps(dict(os.environ)))
        self.finish()

    def tell_order(self) -> None:
        """Tells what it was told."""
        self.mark("order", self.order.model_dump_json())
        self.finish()

    def flood(self) -> None:
        """Says more than any buffer holds."""
        for step in range(1, 6001):
            self.link.emit(Metrics(run="ml_lr", step=step, total_steps=6000, loss=1.0, learning_rate=1e-3))
        self.finish()

    def twice(self) -> None:
        """Reports the same figure twice, with different values, in one breath."""
        self.link.emit(Figures(figures=(figure(0.9),)))
        self.finish()

    def steal(self) -> None:
        """Reports a file that is another's."""
        stored = ArtifactStore(self.root).put(
            "uploads/secret", b"secret", name="adapter.bin", media_type="text/plain", gated=False
        )
        self.link.send(Succeeded(outcome=Outcome(artifacts=(stored,))))


def main() -> None:
    """Serve one order."""
    link = Link.standard()
    link.send(Ready())
    Actor(link, link.order()).play()


if __name__ == "__main__":
    main()
