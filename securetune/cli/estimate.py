"""The command `securetune estimate`. It speaks HTTP to a service.

Not here: computing the estimate (core.orders.estimate).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securetune.cli.common import ApiKeyOption, StateOption, UrlOption, report_errors, service_at

if TYPE_CHECKING:
    from rich.console import Console

    from core.schemas.estimate import Estimate, Seconds
    from securetune.client import SecureTune


def command(
    *,
    spec: Annotated[
        Path | None, typer.Argument(help="JSON file with the body of POST /jobs. Its `dataset` may be left to --data.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Base model, as in GET /models. Default: that of SPEC.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Id of a dataset, or a file, which is uploaded first. Default: the dataset of SPEC."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply as JSON.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    state: StateOption = None,
) -> None:
    """Estimate what a job will cost before it is created: tokens, steps, memory, and the time of each stage.

    Exit status: 1 if the order would be rejected; 0 otherwise, also if the training does not fit into memory.
    """
    from rich.console import Console  # noqa: PLC0415

    with report_errors(), service_at(url, api_key, state) as service:
        found = service.estimate(_order(service, spec, model, data))
        if as_json:
            typer.echo(found.model_dump_json(indent=1))
        else:
            _show(found, Console(soft_wrap=True, highlight=False))


def _order(service: "SecureTune", path: Path | None, model: str | None, data: str | None) -> dict[str, object]:
    """The body of the request.

    Raises:
        InvalidInput: the file is not a JSON object.
        NotFound: `data` is neither a file nor the id of a dataset.
    """
    import json  # noqa: PLC0415

    from core.errors import InvalidInput  # noqa: PLC0415
    from securetune.cli.datasets import find_dataset  # noqa: PLC0415

    try:
        order = json.loads(path.read_bytes()) if path else {}
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read as JSON: {error}.", code="invalid_spec") from error
    if not isinstance(order, dict):
        raise InvalidInput(f"{path} is not a JSON object like the body of POST /jobs.", code="invalid_spec")
    if model is not None:
        order["base_model"] = model
    if data is not None:
        order["dataset"] = find_dataset(service, data)
    return order


def _show(estimate: "Estimate", console: "Console") -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from core.reports.numbers import plural  # noqa: PLC0415

    data = estimate.data
    console.print(
        f"Data: {plural(data.training_rows, 'row')} to train on and {data.validation_rows:,} for validation; "
        f"{plural(data.tokens, 'token')}, {data.trained_tokens:,} of them trained; the longest row has "
        f"{data.longest:,}." + ("" if data.all_rows else " Counted from the beginning of the file.")
    )
    for run in estimate.runs:
        console.print(f"Run {run.run}: {plural(run.steps, 'step')}, {plural(run.tokens, 'token')} with padding.")
    console.print(f"Answers to attacks and look-alikes, of each model: {estimate.answers:,}.")
    console.print(_memory(estimate))
    table = Table("stage", "run", "expected", "range", "measured by", box=SIMPLE_HEAD, pad_edge=False)
    for stage in estimate.stages:
        seconds = stage.seconds
        sources = dict.fromkeys(each.job_id for each in stage.basis) if seconds else {}
        table.add_row(
            stage.stage.replace("_", " ") + (" *" if stage.reusable else ""),
            stage.run or "",
            duration(seconds.expected) if seconds else "not measured",
            _range(seconds) if seconds else "",
            ", ".join(sources),
        )
    if estimate.total:
        table.add_row("total", "", duration(estimate.total.expected), _range(estimate.total), style="bold")
    console.print(table)
    console.print("* takes no time if an earlier job stored the same results.")
    for warning in estimate.warnings:
        console.print(f"Warning: {warning.message} [{warning.code}]", style="yellow", markup=False)


def _memory(estimate: "Estimate") -> str:
    memory = estimate.memory
    if memory is None:
        return "Memory: not known, because the model's weights are not on the server yet."
    need = f"Memory of the training: about {memory.needed.total / 2**30:.1f} GiB"
    if memory.available_bytes is None:
        return f"{need}; no worker has reported how much it has."
    return f"{need} of {memory.available_bytes / 2**30:.1f} GiB: {'fits' if memory.fits else 'does NOT fit'}."


def _range(seconds: "Seconds") -> str:
    return f"{duration(seconds.low)} to {duration(seconds.high)}"


def duration(seconds: float) -> str:
    """A duration in words, such as `1.5 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
