"""A job's data, looked through before anything is loaded or trained: findings, what is dropped, when a job is refused.

Here rows and policy meet. Not here: the checks (core.screening), rules for adapters (core.gate).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from core.attacks.prompts import choose as choose_prompts
from core.data import Conversation
from core.data import load as load_rows
from core.data.batches import encode_all
from core.data.template import Encoded
from core.errors import InvalidInput
from core.lm.load import BaseModel
from core.pipeline.context import Prepared
from core.pipeline.software import software
from core.pipeline.stages import Emit, Stages
from core.schemas.base import Frozen
from core.schemas.events import Screened
from core.schemas.job import DatasetRef, ScreenAssignment
from core.schemas.prompts import ProbePrompts
from core.schemas.results import StoredFile
from core.schemas.screening import Finding, ScreeningPolicy, ScreeningResult
from core.schemas.security import SecuritySpec
from core.schemas.training import TrainingSpec
from core.screening import refused
from core.screening.screen import drop, screen, with_refused
from core.storage import ArtifactStore

_SHOWN = 5
"""Findings that the message of a refused job names."""
_LINES = 20
"""Lines that the event names for each check."""


@dataclass(frozen=True)
class Looked:
    """Rows that may be trained on, and what was found in all of them."""

    rows: Sequence[Conversation]
    result: ScreeningResult


def read(store: ArtifactStore, dataset: DatasetRef) -> list[Conversation]:
    """All rows of a dataset."""
    return load_rows(store.path(dataset.key), dataset.columns, max_rows=dataset.summary.rows)


def look(
    dataset: DatasetRef, policy: ScreeningPolicy, store: ArtifactStore, stages: Stages, *, enforced: bool = True
) -> Looked:
    """Look through a dataset by rules. The same data under the same policy is looked through once.

    Raises:
        InvalidInput: as `check` says, where the policy is enforced.
    """
    rows = read(store, dataset)
    result = stages.stored(
        "screening",
        ScreeningResult,
        lambda: screen(rows, policy, on_progress=partial(stages.report_progress, "row")),
        inputs={
            "dataset": dataset.sha256,
            "columns": dataset.columns.model_dump(mode="json") if dataset.columns else None,
            "policy": policy.model_dump(mode="json"),
            "software": dict(software()),
        },
        shared=True,
    )
    if not enforced:
        return Looked(rows, result)
    tell(result, stages.emit)
    check(result)
    return Looked(drop(rows, result), result)


def tell(result: ScreeningResult, emit: Emit) -> None:
    """Say what was found, in counts and lines."""
    lines = {check.check: _lines(result.findings, check.check) for check in result.checks if check.flagged}
    emit(
        Screened(
            rows=result.rows,
            flagged={check.check: check.flagged for check in result.checks},
            lines=lines,
            dropped=len(result.dropped),
            triggers=tuple(trigger.phrase for trigger in result.triggers),
        )
    )


def check(result: ScreeningResult) -> None:
    """Nothing, where the policy lets the data be trained on.

    Raises:
        InvalidInput: code `data_rejected`, or `too_many_dropped`.
    """
    refusing = {check.check for check in result.checks if check.action == "refuse"}
    if found := [finding for finding in result.findings if finding.check in refusing]:
        raise _refused(f"The data was refused: {_counted(found)} the policy does not allow.", found, "data_rejected")
    share = len(result.dropped) / result.rows
    if share > result.policy.reject_above or len(result.dropped) == result.rows:
        lines = set(result.dropped)
        dropped = [finding for finding in result.findings if finding.line in lines]
        raise _refused(
            f"The data was refused: {100 * share:.1f} % of its rows would be dropped, and the policy takes up to "
            f"{100 * result.policy.reject_above:g} %.",
            dropped,
            "too_many_dropped",
        )


class Measured(Frozen):
    """What a model told of each row."""

    lines: tuple[int, ...]
    """The rows, by line."""
    values: tuple[float, ...]
    """Of each: as `core.screening.refused` says."""
    seconds: float
    """How long it took."""


def asked(job: Prepared) -> Prepared:
    """Ask the base model about the rows, as far as the policy wants; leave out those that it drops.

    Raises:
        InvalidInput: as `check` says.
    """
    if not job.screening.policy.by_model:
        return job
    prompts = job.prompts.probe
    found = job.stages.stored(
        "refused",
        Measured,
        lambda: _measured(job.base, job.data.training.rows, prompts, job.stages),
        inputs=job.job_inputs | {"prompts": prompts.model_dump(mode="json")},
        shared=True,
    )
    result = with_refused(job.screening, found.lines, found.values, found.seconds)
    check(result)
    tell(result, job.emit)
    return replace(job, screening=result, data=job.data.without(result.dropped))


def asked_alone(looked: Looked, base: BaseModel, stages: Stages) -> ScreeningResult:
    """A screening by itself, with a model that is asked about its rows."""
    prompts = choose_prompts(SecuritySpec(), base.folder, {}).probe
    limit = min(TrainingSpec().max_length, base.context)
    rows = stages.run("dataset", lambda: encode_all(stages.counted(looked.rows), base.tokenizer, max_length=limit).rows)
    found = stages.run("refused", lambda: _measured(base, rows, prompts, stages))
    return with_refused(looked.result, found.lines, found.values, found.seconds)


def _measured(base: BaseModel, rows: Sequence[Encoded], prompts: ProbePrompts, stages: Stages) -> Measured:
    started = time.monotonic()
    values = refused.refused(base, rows, prompts, on_progress=partial(stages.report_progress, "row"))
    return Measured(lines=tuple(row.line for row in rows), values=tuple(values), seconds=time.monotonic() - started)


def put(result: ScreeningResult, assignment: ScreenAssignment, store: ArtifactStore) -> StoredFile:
    """Every finding, as a file."""
    name = "screening.json"
    key = f"jobs/{assignment.job_id}/attempts/{assignment.attempt}/{name}"
    return store.put(
        key, result.model_dump_json(indent=1).encode(), name=name, media_type="application/json", gated=False
    )


def _lines(findings: Sequence[Finding], check: str) -> tuple[int, ...]:
    return tuple(sorted({finding.line for finding in findings if finding.check == check})[:_LINES])


def _counted(found: Sequence[Finding]) -> str:
    rows = len({finding.line for finding in found})
    return f"{rows} row holds what" if rows == 1 else f"{rows} rows hold what"


def _refused(what: str, found: Sequence[Finding], code: str) -> InvalidInput:
    first = " ".join(f"Line {each.line}: {each.reason.rstrip('.')} ({each.check})." for each in found[:_SHOWN])
    return InvalidInput(
        f"{what} {first} POST /datasets/{{id}}/screen lists every finding with its line.", code=code, param="dataset"
    )
