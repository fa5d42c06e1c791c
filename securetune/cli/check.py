"""The command `securetune models check`: orders a check from a service, waits for it, and prints the result.

Not here: measuring (core.pipeline.modelcheck).
"""

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.errors import SecureTuneError
from core.reports.numbers import percent, plural
from core.reports.text import visible
from core.schemas.job import CheckRequest
from core.schemas.modelcheck import ModelCheck, RefusalRate
from core.schemas.replies import ModelCheckReply
from securetune.client import ApiError, SecureTune

_GB = 1e9


class CheckFailed(SecureTuneError):
    """The job of the check has failed or was cancelled."""

    code = "check_failed"


def check(service: SecureTune, name: str, request: CheckRequest, console: Console, *, again: bool) -> ModelCheckReply:
    """The newest check of a model, or a new one if there is none or `again` is given.

    Raises:
        CheckFailed: the job failed, with its message, or was cancelled.
        ApiError: as the client does.
    """
    if not again:
        try:
            found = service.model_check(name)
        except ApiError as error:
            if error.code != "model_not_checked":
                raise
        else:
            console.print(Text(f"Checked before, by job {found.job_id}. `--again` orders a new check.\n"))
            return found
    _wait(service, service.check_model(name, request).id, console)
    return service.model_check(name)


def show(reply: ModelCheckReply, console: Console) -> None:
    """Print a check for people."""
    found = reply.check
    for title, lines in (
        ("Model", _describe(reply)),
        ("Chat template", _describe_template(found)),
        ("Refusals without an attack", _describe_refusals(found)),
        ("Speeds", _describe_speeds(found)),
    ):
        console.print(Text(title, style="bold"))
        for line in lines:
            console.print(Text(f"  {line}"))
        console.print()
    console.print(_modules(found))
    console.print(_memory(found))
    console.print(Text("\nRecommended settings", style="bold"))
    for setting in found.settings:
        console.print(Text(f"  {setting.name} = {setting.value}\n      {setting.reason}"))


def _wait(service: SecureTune, job_id: str, console: Console) -> None:
    console.print(Text(f"The check is job {job_id}."))
    last = ""
    try:
        for job in service.watch(job_id, interval=0.5):
            line = job.progress.message if job.progress else "waits for a worker"
            if line != last and job.status in ("queued", "running"):
                console.print(Text(f"  {line}", style="dim"))
            last = line
            if job.status in ("failed", "cancelled"):
                why = job.error.message if job.error else "The job was cancelled."
                raise CheckFailed(why)
    except KeyboardInterrupt as error:
        console.print(Text(f"\nThe check goes on as job {job_id}. To cancel it: POST /jobs/{job_id}/cancel"))
        raise typer.Exit(130) from error
    console.print()


def _describe(reply: ModelCheckReply) -> list[str]:
    found = reply.check
    model, shape = found.model, found.shape
    context = "not limited" if shape.context is None else f"{shape.context:,} tokens"
    return [
        f"{model.name}: {model.architecture}, {model.parameters:,} parameters, {found.weights} weights on a "
        f"{'GPU' if found.device == 'cuda' else 'CPU'}",
        f"Source: {model.source}",
        f"SHA-256: {model.sha256}",
        "Licence: not known to the service; read the model's card",
        f"Layers: {shape.layers} of width {shape.hidden}, {shape.heads} heads ({shape.kv_heads} for keys and values)",
        f"Vocabulary: {shape.vocabulary:,} tokens, output layer "
        f"{'tied to the embeddings' if shape.tied else 'of its own'}. Context: {context}",
        f"Measured {reply.measured_at:%Y-%m-%d %H:%M} UTC on {found.speeds.device}, {_gb(found.speeds.memory_bytes)}",
        *(f"Warning: {warning.message} [{warning.code}]" for warning in found.warnings),
    ]


def _describe_template(found: ModelCheck) -> list[str]:
    template = found.template
    answers = {True: "yes", False: "no"}
    return [
        *visible(template.example).splitlines(),
        f"System turns: {answers[template.system_turns]}. Tools: {answers[template.tools]}. Thinking: "
        f"{answers[template.thinking]}. Answers end with: {' '.join(template.stop_tokens)}",
    ]


def _describe_refusals(found: ModelCheck) -> list[str]:
    refusals = found.refusals
    lines = [
        f"Harmful requests refused: {_rate(refusals.harmful)}",
        f"Safe look-alikes refused: {_rate(refusals.safe)}",
        f"Probe prompts of the set {refusals.prompts}, greedy answers of at most {refusals.max_new_tokens} tokens, "
        "judge rules",
        f"Something to protect: {_protectable(refusals.protectable)}. {refusals.meaning}",
    ]
    if refusals.refused_example:
        lines.append(f"A refusal: {visible(refusals.refused_example)}")
    return lines


def _protectable(value: bool | None) -> str:
    return "not known" if value is None else "yes" if value else "no"


def _rate(rate: RefusalRate) -> str:
    if not rate.n:
        return f"no decided answer ({rate.undecided} undecided)"
    undecided = f", {rate.undecided} undecided" if rate.undecided else ""
    return f"{percent(rate.value)} ({percent(rate.low)} to {percent(rate.high)}, n = {rate.n}{undecided})"


def _describe_speeds(found: ModelCheck) -> list[str]:
    answering, training = found.answer_tokens_per_second, found.training_tokens_per_second
    answers = "not measured" if answering is None else f"{answering:,.0f} generated tokens per second"
    trained = "not measured: it would not fit" if training is None else f"{training:,.0f} tokens per second"
    longest = max(found.answers, key=lambda each: each.length, default=None)
    lines = [f"Answers: {answers}", f"LoRA training, one short row per step: {trained}"]
    if longest is not None:
        lines.append(
            f"Keys and values of an answer of {longest.length:,} tokens: {longest.bytes_per_answer / 1e6:,.0f} MB, of "
            f"all answers of a batch at most {_gb(longest.limit)}"
        )
    return lines


def _modules(found: ModelCheck) -> Table:
    title = f"Modules: {plural(len(found.modules), 'type')}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("type", "layers", "outputs x inputs", "parameters", "biases"):
        table.add_column(column, justify="left" if column == "type" else "right")
    for kind in found.modules:
        table.add_row(kind.type, str(kind.layers), ", ".join(kind.shapes), f"{kind.parameters:,}", f"{kind.biases:,}")
    return table


def _memory(found: ModelCheck) -> Table:
    title = f"Estimated memory of training in GB, adapter of rank {found.request.lora_rank}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)  # within 80 columns
    columns = ("method", "rows", "length", "weights", "trained", "activations", "logits", "overhead", "total", "fits")
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    for each in found.memory:
        memory = each.memory
        trained = memory.adapter + memory.gradients + memory.optimizer
        parts = (memory.weights, trained, memory.activations, memory.logits, memory.overhead, memory.total)
        sizes = [f"{part / _GB:.1f}" for part in parts]
        table.add_row(each.method, str(each.batch_size), f"{each.length:,}", *sizes, "yes" if each.fits else "no")
    return table


def _gb(size: int) -> str:
    return f"{size / _GB:.1f} GB"
