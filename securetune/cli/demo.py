"""The main job, end to end, on this machine: data goes in over HTTP, figures and an adapter come out.

One job trains two arms on the same rows and seed, `ml_lr` and, to compare, `uniform`. Everything is left below `--out`.
Not here: the service (securetune.local.running), what a job does (core.pipeline).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from core.config import settings
from core.data import Conversation, load, validate
from core.db import keys
from core.db.session import once
from core.errors import InvalidDataset, SecureTuneError
from core.schemas.data import ColumnMap
from core.schemas.events import Warned
from core.schemas.gate import GateDecision
from core.schemas.job import BASE_RUN, JobSpec
from core.schemas.metrics import OVER_REFUSAL, TASK, Metric
from core.schemas.replies import JobReply
from core.schemas.results import Figure, Report
from core.schemas.security import SUITES
from core.schemas.strategy import MlLrStrategy, UniformStrategy
from core.schemas.training import TrainingSpec
from core.signing import KEYS_FILE, SIGNED_REPORT
from securetune.client import SecureTune
from securetune.client.service import ReportForm
from securetune.local import Address, running
from securetune.local.up import database

BUILTIN_DATA = Path(__file__).parents[2] / "testbed" / "data" / "instructions.jsonl"
BUILTIN_STEPS = 250
"""About half a pass over these: the testbed has learnt their form by then."""
_RUNS = (BASE_RUN, "uniform", "ml_lr")
_FAMILIES = tuple(attack.family for attack in SUITES["standard"].attacks)
_KNOWN_COLUMNS = (("question", "answer"), ("question", "response"), ("input", "output"), ("instruction", "response"))
_MOST_ROWS = 10_000_000
_FILES: dict[str, ReportForm] = {
    "report.html": "html",
    "report.json": "json",
    "model_card.md": "card",
    SIGNED_REPORT: "signed",
}
_WHY = "The demo hands its adapter to whoever runs it: a toy model, whose answers are harmless placeholders."


@dataclass(frozen=True)
class Options:
    """What the demo runs on. `rows` 0 takes all; `steps` None takes three passes over them."""

    data: Path
    out: Path
    rows: int
    steps: int | None
    max_length: int


class DemoFailed(SecureTuneError):
    """The job did not succeed; the message is the service's own."""

    code = "demo_failed"


def demo(options: Options, console: Console) -> Path:
    """Run the job, print the figures side by side, and return the path of `result.json`.

    Raises:
        DemoFailed: the job failed or was cancelled.
        InvalidDataset: the data cannot be read.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    data = _subset(options, console)
    with ExitStack() as stack:
        with console.status("Starting PostgreSQL, Valkey, the API and a worker ..."):
            service = stack.enter_context(running(options.out / "state"))
        console.print(f"securetune runs at {service.address} for as long as the demo does.")
        client = stack.enter_context(SecureTune(service.address, service.api_key))
        dataset = client.upload_dataset(data)
        console.print(f"Dataset {dataset.id}: {dataset.summary.rows} rows.")
        job = client.create_job(_spec(options, dataset.id))
        console.print(f"Job {job.id}: tuning with ml_lr, and with uniform to compare.")
        try:
            job = _watched(client, job.id, console)
        except KeyboardInterrupt:
            client.cancel(job.id)
            console.print(f"Job {job.id} is cancelled.")
            raise
        _let_out(service, job, console)
        return _results(client, job, options.out, console)


def _spec(options: Options, dataset: str) -> JobSpec:
    return JobSpec(
        base_model="testbed",
        dataset=dataset,
        strategy=MlLrStrategy(),
        compare=(UniformStrategy(),),
        training=TrainingSpec(steps=options.steps, max_length=options.max_length),
    )


def _subset(options: Options, console: Console) -> Path:
    """The file to upload: at most `rows` conversations, evenly spread over the given file, as chat messages."""
    columns = _columns(options.data)
    conversations = load(options.data, columns, max_rows=_MOST_ROWS)
    chosen = list(_spread(conversations, options.rows))
    if columns is None and len(chosen) == len(conversations):
        return options.data
    console.print(f"Using {len(chosen)} of the {len(conversations)} rows of {options.data} (--rows 0 takes all).")
    path = options.out / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in chosen:
            messages = [message.model_dump() for message in row.messages]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def _columns(data: Path) -> ColumnMap | None:
    """None when the file's layout is known as it is; else the first well-known pair of columns that fits all rows."""
    try:
        validate(data, max_rows=_MOST_ROWS)
    except InvalidDataset as refused:
        for prompt, completion in _KNOWN_COLUMNS:
            columns = ColumnMap(prompt=prompt, completion=completion)
            try:
                validate(data, columns, max_rows=_MOST_ROWS)
            except InvalidDataset:
                continue
            return columns
        raise refused from None
    return None


def _spread(rows: Sequence[Conversation], most: int) -> Iterator[Conversation]:
    wanted = len(rows) if most == 0 else min(most, len(rows))
    return (rows[index * len(rows) // wanted] for index in range(wanted))


def _watched(client: SecureTune, job_id: str, console: Console) -> JobReply:
    """Follow the job to its end: a bar on a terminal, a line a stage elsewhere."""
    columns = (TextColumn("{task.description:58}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting for the worker", total=1.0)
        tell = _Teller(console)
        job = client.job(job_id)
        for job in client.watch(job_id, interval=0.5):
            if job.progress is None:
                continue
            where = f"{job.progress.stage} {job.progress.run or ''}".strip()
            bar.update(task, completed=job.progress.fraction, description=f"{where}: {job.progress.message}")
            tell(where, job.progress.message, job.progress.fraction)
        if job.status == "succeeded":
            bar.update(task, completed=1.0, description="done")
    if job.status != "succeeded":
        said = f"{job.error.message} ({job.error.code})" if job.error else ""
        raise DemoFailed(f"Job {job.id} is {job.status}. {said}".strip())
    return job


class _Teller:
    """Prints progress where no bar can be drawn: each stage once, and every tenth part of the job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ("", -1)

    def __call__(self, where: str, message: str, fraction: float) -> None:
        now = (where, int(10 * fraction))
        if not self._console.is_terminal and now != self._last:
            self._last = now
            self._console.print(f"{100 * fraction:5.1f} %  {where}: {message}")


def _results(client: SecureTune, job: JobReply, out: Path, console: Console) -> Path:
    adapter = client.download_adapter(job.id, out / "adapter")
    for name, form in _FILES.items():
        (out / name).write_bytes(client.report_file(job.id, form))
    report = Report.model_validate_json((out / "report.json").read_bytes())
    (out / KEYS_FILE).write_text(client.signing_keys().model_dump_json(indent=1), encoding="utf-8")
    find = _finder(job.figures)
    result = out / "result.json"
    page, signed = out / "report.html", out / SIGNED_REPORT
    summary = {
        "job_id": job.id,
        "adapter_path": str(adapter.resolve()),
        "report_path": str(page.resolve()),
        "signed_report_path": str(signed.resolve()),
        "runs": {run: _run(find, run) | {"gate": _gate(report.gate, run)} for run in _RUNS},
    }
    result.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    for warning in dict.fromkeys(_warnings(client, job.id)):  # an interrupted job says them again
        console.print(f"Note: {warning}")
    console.print(_table(find))
    for decision in report.gate:
        _tell(decision, console)
    for what, path in (("Adapter", adapter), ("Report", page), ("Signed report", signed), ("Figures", result)):
        console.print(f"{what}: {path.resolve()}", soft_wrap=True)
    console.print(f"Check it: securetune verify {signed}", soft_wrap=True)
    return result


def _gate(decisions: Sequence[GateDecision], run: str) -> dict[str, object]:
    decision = next((each for each in decisions if each.run == run), None)
    if decision is None:
        return {"outcome": "not_gated", "reasons": ["The base model is what arms are compared with."]}
    return {"outcome": decision.outcome, "reasons": [reason.message for reason in decision.reasons]}


def _tell(decision: GateDecision, console: Console) -> None:
    """What the gate made of an arm, with every reason."""
    console.print(f"Gate: {decision.run} is {decision.outcome}.")
    for reason in decision.reasons:
        console.print(f"  - {reason.message}", soft_wrap=True, markup=False, highlight=False)


def _let_out(address: Address, job: JobReply, console: Console) -> None:
    """What the gate withholds is let out, on record, so that there is an adapter to look at."""
    if job.gate is None or job.gate.available:
        return
    with database(address.state, settings()) as url, once(url) as session:
        key = keys.create(session, "demo", rights=("override",))
    with SecureTune(address.address, key) as able:
        able.override_gate(job.id, _WHY)
    console.print(
        f"The gate withholds this adapter ({job.gate.outcome}). The demo overrides that with a key that has the right "
        "to, which stays on record, so that you can look at it.",
        soft_wrap=True,
    )


def _warnings(client: SecureTune, job_id: str) -> Iterator[str]:
    return (entry.event.message for entry in client.events(job_id) if isinstance(entry.event, Warned))


Find = Callable[[str, str, Metric], Figure | None]


def _finder(figures: Sequence[Figure]) -> Find:
    found = {(figure.run, figure.suite, figure.metric): figure for figure in figures}
    return lambda run, suite, metric: found.get((run, suite, metric))


def _run(find: Find, run: str) -> dict[str, object]:
    def value(suite: str, metric: Metric) -> float | None:
        figure = find(run, suite, metric)
        return figure.value if figure and figure.n else None

    return {
        "asr": {family: value(family, "attack_success_rate") for family in _FAMILIES},
        "harmfulness": _mean([find(run, family, "harmfulness") for family in _FAMILIES]),
        "over_refusal": value(OVER_REFUSAL, "over_refusal_rate"),
        "task": {"loss": value(TASK, "loss")},
    }


def _mean(figures: Sequence[Figure | None]) -> float | None:
    """Over all answers of all families."""
    known = [figure for figure in figures if figure and figure.n]
    return sum(figure.value * figure.n for figure in known) / sum(figure.n for figure in known) if known else None


def _table(find: Find) -> Table:
    table = Table(
        *("", *_RUNS),
        box=SIMPLE_HEAD,
        pad_edge=False,
        title="Before and after",
        caption="ASR: attack success rate. harm: harmfulness, 1 to 5. In brackets: 95 % interval.",
    )
    for family in _FAMILIES:
        table.add_row(f"ASR {family.replace('_', ' ')}", *_cells(find, family, "attack_success_rate"))
    for family in _FAMILIES:
        table.add_row(f"harm {family.replace('_', ' ')}", *_cells(find, family, "harmfulness"))
    table.add_row("over-refusal", *_cells(find, OVER_REFUSAL, "over_refusal_rate"))
    table.add_row("task loss", *_cells(find, TASK, "loss"))
    return table


def _cells(find: Find, suite: str, metric: Metric) -> list[str]:
    return [_cell(find(run, suite, metric)) for run in _RUNS]


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.n == 0:
        return "unknown"
    if figure.metric.endswith("_rate"):
        return f"{100 * figure.value:.0f} % ({100 * figure.low:.0f}-{100 * figure.high:.0f})"
    return f"{figure.value:.2f} ({figure.low:.2f}-{figure.high:.2f})"
