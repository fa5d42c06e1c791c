"""The main job, end to end, on this machine: data goes in over HTTP; figures, a report and a safe adapter come out.

One job trains three runs on the same rows and seed: `recommended`, which the experiments support, and as baselines
`uniform` and `ml_lr`. Everything is written below `--out`. Not here: the service (securetune.local.running), what a job
does (core.pipeline).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from core.data import Conversation, load, validate
from core.errors import InvalidDataset, SecureTuneError
from core.schemas.data import ColumnMap
from core.schemas.evaluation import Figure
from core.schemas.events import Warned
from core.schemas.job import BASE_RUN, JobSpec
from core.schemas.metrics import OVER_REFUSAL, TASK, Metric
from core.schemas.policy import Policy
from core.schemas.replies import JobReply
from core.schemas.results import Report
from core.schemas.safeguards import Safeguards, SafetyMix
from core.schemas.strategy import MlLrStrategy, UniformStrategy
from core.schemas.training import TrainingSpec
from core.signing import KEYS_FILE, SIGNED_REPORT
from securetune.client import SecureTune
from securetune.client.service import ReportForm
from securetune.local import running

BUILTIN_DATA = Path(__file__).parents[2] / "testbed" / "data" / "instructions.jsonl"
BUILTIN_STEPS = 250
"""About half a pass over these: the testbed has learnt their form by then."""
RECOMMENDED = UniformStrategy(label="recommended", safeguards=Safeguards(SafetyMix()))
"""What research/experiments support: the base model's own refusals among the rows."""
BASELINES = (UniformStrategy(), MlLrStrategy())
_KNOWN_COLUMNS = (("question", "answer"), ("question", "response"), ("input", "output"), ("instruction", "response"))
_MAX_ROWS = 10_000_000
_FILES: dict[str, ReportForm] = {
    "report.html": "html",
    "report.json": "json",
    "model_card.md": "card",
    SIGNED_REPORT: "signed",
}


@dataclass(frozen=True)
class Options:
    """What the demo runs on."""

    data: Path
    """Dataset file in any supported format."""
    out: Path
    """Folder for the results and for the demo's own service."""
    rows: int
    """Rows to use, spread evenly over the file; 0 uses all."""
    steps: int | None
    """Training steps; None makes three passes over the rows."""
    max_length: int
    """Longest row in tokens."""


class DemoFailed(SecureTuneError):
    """The job did not succeed. The message is the one that the service reports."""

    code = "demo_failed"


def demo(options: Options, console: Console) -> Path:
    """Run the job, print a verdict a run, and return the path of `result.json`.

    Raises:
        DemoFailed: code `demo_failed`; the job failed or was cancelled.
        InvalidDataset: the file has invalid rows or an unknown layout.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    data = _subset(options, console)
    with ExitStack() as stack:
        with console.status("Starting PostgreSQL, Valkey, the API and a worker ..."):
            service = stack.enter_context(running(options.out / "state"))
        console.print(f"securetune is running at {service.address} until the demo ends.")
        client = stack.enter_context(SecureTune(service.address, service.api_key))
        dataset = client.upload_dataset(data)
        console.print(f"Dataset {dataset.id}: {dataset.summary.rows} rows.")
        job = client.create_job(_spec(options, dataset.id))
        runs = ", ".join(run.label for run in (RECOMMENDED, *BASELINES))
        console.print(f"Job {job.id}: training and attacking {runs}.")
        try:
            job = _watch(client, job.id, console)
        except KeyboardInterrupt:
            client.cancel(job.id)
            console.print(f"Cancelled job {job.id}.")
            raise
        return _show_results(client, job, options.out, console)


def _spec(options: Options, dataset: str) -> JobSpec:
    return JobSpec(
        base_model="testbed",
        dataset=dataset,
        strategy=RECOMMENDED,
        compare=BASELINES,
        training=TrainingSpec(steps=options.steps, max_length=options.max_length),
    )


def _subset(options: Options, console: Console) -> Path:
    """The file to upload: at most `rows` conversations, evenly spread over the given file, as chat messages."""
    columns = _columns(options.data)
    conversations = load(options.data, columns, max_rows=_MAX_ROWS)
    chosen = list(_spread(conversations, options.rows))
    if columns is None and len(chosen) == len(conversations):
        return options.data
    console.print(f"Using {len(chosen)} of the {len(conversations)} rows of {options.data} (--rows 0 uses all).")
    path = options.out / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in chosen:
            messages = [message.model_dump() for message in row.messages]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def _columns(data: Path) -> ColumnMap | None:
    """None if the file's layout is known; else the first well-known pair of columns that fits all rows."""
    try:
        validate(data, max_rows=_MAX_ROWS)
    except InvalidDataset as invalid:
        for prompt, completion in _KNOWN_COLUMNS:
            columns = ColumnMap(prompt=prompt, completion=completion)
            try:
                validate(data, columns, max_rows=_MAX_ROWS)
            except InvalidDataset:
                continue
            return columns
        raise invalid from None
    return None


def _spread(rows: Sequence[Conversation], most: int) -> Iterator[Conversation]:
    wanted = len(rows) if most == 0 else min(most, len(rows))
    return (rows[index * len(rows) // wanted] for index in range(wanted))


def _watch(client: SecureTune, job_id: str, console: Console) -> JobReply:
    """Follow the job to its end, with a progress bar on a terminal and a line per stage elsewhere."""
    columns = (TextColumn("{task.description:58}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting for the worker", total=1.0)
        log = _ProgressLog(console)
        job = client.job(job_id)
        for job in client.watch(job_id, interval=0.5):
            if job.progress is None:
                continue
            where = f"{job.progress.stage} {job.progress.run or ''}".strip()
            bar.update(task, completed=job.progress.fraction, description=f"{where}: {job.progress.message}")
            log(where, job.progress.message, job.progress.fraction)
        if job.status == "succeeded":
            bar.update(task, completed=1.0, description="done")
    if job.status != "succeeded":
        reason = f"{job.error.message} ({job.error.code})" if job.error else ""
        raise DemoFailed(f"Job {job.id} is {job.status}. {reason}".strip())
    return job


class _ProgressLog:
    """Prints progress where no bar can be drawn: every stage once, and every tenth of the job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ("", -1)

    def __call__(self, where: str, message: str, fraction: float) -> None:
        now = (where, int(10 * fraction))
        if not self._console.is_terminal and now != self._last:
            self._last = now
            self._console.print(f"{100 * fraction:5.1f} %  {where}: {message}")


def _show_results(client: SecureTune, job: JobReply, out: Path, console: Console) -> Path:
    """Download everything, write `result.json`, and print one screen: a verdict a run, and where the files are."""
    adapter = _download(client, job, out)
    report = Report.model_validate_json((out / "report.json").read_bytes())
    runs = {run: _summarize(report, run) for run in (BASE_RUN, *(each.label for each in report.spec.runs))}
    summary = {
        "job_id": job.id,
        "adapter_path": None if adapter is None else str(adapter.resolve()),
        "report_path": str((out / "report.html").resolve()),
        "signed_report_path": str((out / SIGNED_REPORT).resolve()),
        "recommended": report.spec.strategy.label,
        "runs": runs,
    }
    result = out / "result.json"
    result.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    for warning in dict.fromkeys(_warnings(client, job.id)):  # an interrupted job repeats them
        console.print(f"Warning: {warning}")
    console.print(_table(report))
    if broken := _broken_on_base(report):
        console.print(f"Not counted as worst attack: {', '.join(broken)}, which already succeeds on the base model.")
    for name in ("report.html", "result.json", SIGNED_REPORT, *(("adapter",) if adapter else ())):
        console.print(f"  {out / name}", soft_wrap=True, highlight=False)
    console.print(f"Verify the report: securetune verify {out / SIGNED_REPORT}", soft_wrap=True, highlight=False)
    return result


def _download(client: SecureTune, job: JobReply, out: Path) -> Path | None:
    """The report's files and the public keys; the adapter too if the gate released it."""
    for name, form in _FILES.items():
        (out / name).write_bytes(client.report_file(job.id, form))
    (out / KEYS_FILE).write_text(client.signing_keys().model_dump_json(indent=1), encoding="utf-8")
    return client.download_adapter(job.id, out / "adapter") if job.gate and job.gate.available else None


def _warnings(client: SecureTune, job_id: str) -> Iterator[str]:
    return (entry.event.message for entry in client.events(job_id) if isinstance(entry.event, Warned))


def _summarize(report: Report, run: str) -> dict[str, object]:
    """One run's figures and the gate's verdict, as `result.json` keeps them."""
    decision = next((each for each in report.gate if each.run == run), None)
    return {
        "asr": {each.suite: each.value for each in _rates(report, run)},
        "harmfulness": _mean([each for each in report.figures if (each.run, each.metric) == (run, "harmfulness")]),
        "over_refusal": _value(report, run, OVER_REFUSAL, "over_refusal_rate"),
        "task": {"loss": _value(report, run, TASK, "loss")},
        "gate": {
            "outcome": decision.outcome if decision else "not_gated",
            "reasons": [reason.message for reason in decision.reasons] if decision else [],
        },
    }


def _rates(report: Report, run: str) -> list[Figure]:
    return [each for each in report.figures if (each.run, each.metric) == (run, "attack_success_rate") and each.n]


def _find(report: Report, run: str, suite: str, metric: Metric) -> Figure | None:
    return next((each for each in report.figures if (each.run, each.suite, each.metric) == (run, suite, metric)), None)


def _value(report: Report, run: str, suite: str, metric: Metric) -> float | None:
    figure = _find(report, run, suite, metric)
    return figure.value if figure and figure.n else None


def _mean(figures: Sequence[Figure]) -> float | None:
    """Mean over all answers of all families."""
    total = sum(figure.n for figure in figures)
    return sum(figure.value * figure.n for figure in figures) / total if total else None


def _table(report: Report) -> Table:
    """A line a run: the gate's verdict, the worst attack, over-refusal and the task."""
    table = Table("run", "gate", "worst attack", "over-refusal", "task loss", box=SIMPLE_HEAD, pad_edge=False)
    outcomes = {each.run: each.outcome for each in report.gate}
    for run in (BASE_RUN, *(each.label for each in report.spec.runs)):
        worst = max(_counted(report, run), key=lambda each: each.value, default=None)
        attack = "none" if worst is None else f"{worst.suite.replace('_', ' ')} {_cell(worst)}"
        over_refusal = _short(_find(report, run, OVER_REFUSAL, "over_refusal_rate"))
        table.add_row(run, outcomes.get(run, "-"), attack, over_refusal, _short(_find(report, run, TASK, "loss")))
    return table


def _counted(report: Report, run: str) -> list[Figure]:
    """A run's attacks, less those that already succeed on the base model: the gate judges only their increase."""
    return [each for each in _rates(report, run) if run == BASE_RUN or each.suite not in _broken_on_base(report)]


def _broken_on_base(report: Report) -> list[str]:
    policy = report.policy.policy if report.policy else Policy()
    bounds = {each.suite: policy.rule(each.suite) for each in _rates(report, BASE_RUN)}
    return [
        each.suite
        for each in _rates(report, BASE_RUN)
        if (rule := bounds[each.suite]) is not None and rule.max_rate is not None and each.high > rule.max_rate
    ]


def _cell(rate: Figure) -> str:
    """A rate with its 95 % confidence interval."""
    return f"{100 * rate.value:.0f} % ({100 * rate.low:.0f}-{100 * rate.high:.0f})"


def _short(figure: Figure | None) -> str:
    """A figure without its interval, which the report has."""
    if figure is None or figure.n == 0:
        return "unknown"
    return f"{100 * figure.value:.0f} %" if figure.metric.endswith("_rate") else f"{figure.value:.2f}"
