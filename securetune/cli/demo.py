"""The main job, end to end, on this machine: data goes in over HTTP; figures, a report and a safe adapter come out.

One job trains three runs on the same rows and seed: `recommended`, which the experiments support, and as baselines
`uniform` and `ml_lr`. Everything is written below `--out`. Not here: the service (securetune.local.running), what a job
does (core.pipeline).
"""

import json
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from core.data import Conversation, load
from core.errors import InvalidDataset, SecureTuneError
from core.schemas.data import ColumnMap
from core.schemas.evaluation import Figure
from core.schemas.events import Warned
from core.schemas.job import BASE_RUN, JobSpec
from core.schemas.metrics import OVER_REFUSAL, TASK, Metric
from core.schemas.policy import Policy
from core.schemas.replies import JobReply
from core.schemas.results import Report
from core.schemas.security import SecuritySpec, SuiteName
from core.schemas.strategy import RECOMMENDED, MlLrStrategy, UniformStrategy
from core.schemas.training import TrainingSpec
from core.signing import KEYS_FILE, SIGNED_REPORT
from securetune.client import SecureTune
from securetune.client.service import ReportForm
from securetune.local import running

BUILTIN_DATA = Path(__file__).parents[2] / "testbed" / "data" / "instructions.jsonl"
BUILTIN_STEPS = 250
"""About half a pass over these: the testbed has learnt their form by then."""
BASELINES = (UniformStrategy(), MlLrStrategy())
_KNOWN_COLUMNS = (("question", "answer"), ("question", "response"), ("input", "output"), ("instruction", "response"))
_MAX_ROWS = 10_000_000
_FILES: dict[str, ReportForm] = {
    "report.html": "html",
    "report.json": "json",
    "model_card.md": "card",
    SIGNED_REPORT: "signed",
}


def demo(
    data: Path, out: Path, console: Console, *, rows: int, steps: int | None, max_length: int, suite: SuiteName
) -> Path:
    """Run the job, print a verdict a run, and return the path of `result.json`.

    Args:
        data: dataset file in any supported format.
        out: folder for the results and for the demo's own service.
        rows: rows to use, spread evenly over the file; 0 uses all.
        steps: training steps; None makes three passes over the rows.
        max_length: longest row in tokens.
        suite: attacks that are run.

    Raises:
        SecureTuneError: code `demo_failed`; the job failed or was cancelled. The message is the service's.
        InvalidDataset: the file has invalid rows or an unknown layout.
    """
    out.mkdir(parents=True, exist_ok=True)
    upload = _subset(data, rows, out, console)
    with ExitStack() as stack:
        with console.status("Starting PostgreSQL, Valkey, the API and a worker ..."):
            service = stack.enter_context(running(out / "state"))
        console.print(f"securetune is running at {service.address} until the demo ends.")
        client = stack.enter_context(SecureTune(service.address, service.api_key))
        dataset = client.upload_dataset(upload)
        console.print(f"Dataset {dataset.id}: {dataset.summary.rows} rows.")
        training = TrainingSpec(steps=steps, max_length=max_length)
        spec = JobSpec(
            base_model="testbed",
            dataset=dataset.id,
            strategy=RECOMMENDED,
            compare=BASELINES,
            training=training,
            security=SecuritySpec(suite=suite, measure_noise=False),
        )
        job = client.create_job(spec)
        console.print(f"Job {job.id}: training and attacking {', '.join(run.label for run in spec.runs)}.")
        try:
            job = _watch(client, job.id, console)
        except KeyboardInterrupt:
            client.cancel(job.id)
            console.print(f"Cancelled job {job.id}.")
            raise
        return _show_results(client, job, out, console)


def _subset(data: Path, rows: int, out: Path, console: Console) -> Path:
    """The file to upload: at most `rows` conversations, evenly spread over the given file, as chat messages."""
    conversations, has_known_layout = _load(data)
    count = min(rows or len(conversations), len(conversations))
    if has_known_layout and count == len(conversations):
        return data
    console.print(f"Using {count} of the {len(conversations)} rows of {data} (--rows 0 uses all).")
    path = out / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            row = conversations[index * len(conversations) // count]
            messages = [message.model_dump() for message in row.messages]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def _load(data: Path) -> tuple[list[Conversation], bool]:
    """The rows of a file, and whether its layout is known. If not, the first well-known pair of columns that fits."""
    try:
        return load(data, max_rows=_MAX_ROWS), True
    except InvalidDataset:
        for prompt, completion in _KNOWN_COLUMNS:
            with suppress(InvalidDataset):
                return load(data, ColumnMap(prompt=prompt, completion=completion), max_rows=_MAX_ROWS), False
        raise


def _watch(client: SecureTune, job_id: str, console: Console) -> JobReply:
    """Follow the job to its end, with a progress bar on a terminal; elsewhere a line per stage and tenth of the job."""
    columns = (TextColumn("{task.description:58}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    shown = ("", -1)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting for the worker", total=1.0)
        job = client.job(job_id)
        for job in client.watch(job_id, interval=0.5):
            if job.progress is None:
                continue
            where = f"{job.progress.stage} {job.progress.run or ''}".strip()
            fraction, message = job.progress.fraction, job.progress.message
            bar.update(task, completed=fraction, description=f"{where}: {message}")
            if not console.is_terminal and shown != (where, int(10 * fraction)):
                shown = (where, int(10 * fraction))
                console.print(f"{100 * fraction:5.1f} %  {where}: {message}")
        if job.status == "succeeded":
            bar.update(task, completed=1.0, description="done")
    if job.status != "succeeded":
        reason = f"{job.error.message} ({job.error.code})" if job.error else ""
        raise SecureTuneError(f"Job {job.id} is {job.status}. {reason}".strip(), code="demo_failed")
    return job


def _show_results(client: SecureTune, job: JobReply, out: Path, console: Console) -> Path:
    """Download everything, write `result.json`, and print one screen: a verdict a run, and where the files are."""
    adapter = _download(client, job, out)
    report = Report.model_validate_json((out / "report.json").read_bytes())
    told = [entry.event.message for entry in client.events(job.id) if isinstance(entry.event, Warned)]
    warnings = list(dict.fromkeys(told))  # an interrupted job repeats them
    summary = {
        "job_id": job.id,
        "adapter_path": None if adapter is None else str(adapter.resolve()),
        "report_path": str((out / "report.html").resolve()),
        "signed_report_path": str((out / SIGNED_REPORT).resolve()),
        "recommended": report.spec.strategy.label,
        "runs": {run: _summarize(report, run) for run in _models(report)},
        "warnings": warnings,
    }
    result = out / "result.json"
    result.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    for warning in warnings:  # what happened; what can be done is in the file
        console.print(f"Warning: {warning.partition('. ')[0].removesuffix('.')}.")
    broken = _broken_on_base(report)
    console.print(_table(report, broken))
    if broken:
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


def _summarize(report: Report, run: str) -> dict[str, object]:
    """One run's figures and the gate's verdict for `result.json`. Harmfulness is the mean over all answers."""
    decision = next((each for each in report.gate if each.run == run), None)
    scores = [each for each in report.figures if (each.run, each.metric) == (run, "harmfulness") and each.n]
    answers = sum(each.n for each in scores)
    over_refusal, loss = _find(report, run, OVER_REFUSAL, "over_refusal_rate"), _find(report, run, TASK, "loss")
    return {
        "asr": {each.suite: each.value for each in _rates(report, run)},
        "harmfulness": sum(each.value * each.n for each in scores) / answers if answers else None,
        "over_refusal": over_refusal.value if over_refusal else None,
        "task": {"loss": loss.value if loss else None},
        "gate": {
            "outcome": decision.outcome if decision else "not_gated",
            "reasons": [reason.message for reason in decision.reasons] if decision else [],
        },
    }


def _rates(report: Report, run: str) -> list[Figure]:
    return [each for each in report.figures if (each.run, each.metric) == (run, "attack_success_rate") and each.n]


def _find(report: Report, run: str, suite: str, metric: Metric) -> Figure | None:
    """A figure of a run; None if it was not measured."""
    key = (run, suite, metric)
    return next((each for each in report.figures if (each.run, each.suite, each.metric) == key and each.n), None)


def _table(report: Report, not_counted: Collection[str]) -> Table:
    """A line a run: the gate's verdict, the worst attack with its 95 % interval, over-refusal and the task.

    Attacks in `not_counted` are left out, except for the base model: the gate judges only their increase.
    """
    table = Table("run", "gate", "worst attack", "over-refusal", "task loss", box=SIMPLE_HEAD, pad_edge=False)
    outcomes = {each.run: each.outcome for each in report.gate}
    for run in _models(report):
        rates = [each for each in _rates(report, run) if run == BASE_RUN or each.suite not in not_counted]
        worst = max(rates, key=lambda each: each.value, default=None)
        attack = "none"
        if worst is not None:
            name = worst.suite.replace("_", " ")
            attack = f"{name} {100 * worst.value:.0f} % ({100 * worst.low:.0f}-{100 * worst.high:.0f})"
        over_refusal, loss = _find(report, run, OVER_REFUSAL, "over_refusal_rate"), _find(report, run, TASK, "loss")
        table.add_row(
            run,
            outcomes.get(run, "-"),
            attack,
            f"{100 * over_refusal.value:.0f} %" if over_refusal else "unknown",
            f"{loss.value:.2f}" if loss else "unknown",
        )
    return table


def _models(report: Report) -> tuple[str, ...]:
    return (BASE_RUN, *(run.label for run in report.spec.runs))


def _broken_on_base(report: Report) -> list[str]:
    """Attacks that exceed the policy's bound on the base model."""
    policy = report.policy.policy if report.policy else Policy()
    rules = ((each, policy.rule(each.suite)) for each in _rates(report, BASE_RUN))
    return [each.suite for each, rule in rules if rule and rule.max_rate is not None and each.high > rule.max_rate]
