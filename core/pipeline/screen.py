"""Screening of a job's data: which rows may be trained on, and when the findings fail the job.

Covers: checks that read the text, before the model is loaded; checks that run the base model; events and the file of
findings. Not here: the checks (core.screening), the release decision for a trained model (core.gate).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from pydantic import JsonValue

from core.attacks.prompts import choose_prompts
from core.data import Conversation
from core.data import load as load_rows
from core.data.encoded import Encoded
from core.data.template import encode_all
from core.errors import InvalidInput
from core.lm.load import BaseModel
from core.pipeline.cache import code_of
from core.pipeline.context import JobContext
from core.pipeline.inputs import load_dataset
from core.pipeline.stages import Emit, Stages
from core.schemas.base import Frozen
from core.schemas.events import Screened
from core.schemas.job import DatasetRef, ScreenAssignment
from core.schemas.prompts import ProbePrompts
from core.schemas.results import StoredFile
from core.schemas.screening import Finding, ScreeningPolicy, ScreeningResult, is_report_only
from core.schemas.security import SecuritySpec
from core.schemas.training import TrainingSpec
from core.screening.check import Found, model_check, row_checks
from core.screening.screen import add_findings, drop_rows, screen_rows
from core.storage import ArtifactStore

_MAX_IN_MESSAGE = 5
"""Findings that the error message lists."""
_MAX_LINES = 20
"""Lines that the event lists for each check."""


@dataclass(frozen=True)
class ScreenedRows:
    """Rows that may be trained on, and the findings in all rows."""

    rows: Sequence[Conversation]
    result: ScreeningResult


class ModelFindings(Frozen):
    """What one check that runs the base model found; stored, so that a retry of the job does not run it again."""

    findings: tuple[Finding, ...]
    """Flagged rows."""
    seconds: float
    """Duration of the check in seconds."""


def screen_dataset(
    dataset: DatasetRef, policy: ScreeningPolicy, store: ArtifactStore, stages: Stages, *, enforce: bool = True
) -> ScreenedRows:
    """Run the checks that read the text. The result is stored by dataset and policy, and shared between jobs.

    If `enforce` is false, no rows are dropped, no event is emitted, and the job never fails because of findings.

    Raises:
        InvalidInput: see `enforce_policy`.
    """
    rows = load_dataset(store, dataset)
    result = stages.run_cached(
        "screening",
        ScreeningResult,
        lambda: _screen_rows(rows, policy, stages),
        inputs={
            "dataset": dataset.sha256,
            "columns": dataset.columns.model_dump(mode="json") if dataset.columns else None,
            "policy": policy.model_dump(mode="json"),
            "code": code_of(screen_rows, *(check.find for check in row_checks()), load_rows, caller=__name__),
        },
        shared=True,
    )
    if not enforce:
        return ScreenedRows(rows, result)
    report_findings(result, stages.emit)
    enforce_policy(result)
    return ScreenedRows(drop_rows(rows, result), result)


def _screen_rows(rows: Sequence[Conversation], policy: ScreeningPolicy, stages: Stages) -> ScreeningResult:
    characters = sum(len(message.content) for row in rows for message in row.messages)
    with stages.meter.measure("screen", calls=len(rows), amount=characters):
        return screen_rows(rows, policy, on_progress=partial(stages.report_progress, "row"))


def screen_by_model(job: JobContext) -> JobContext:
    """Run the checks that need the base model, and leave out the rows that they drop.

    Raises:
        InvalidInput: see `enforce_policy`.
    """
    if not job.screening.policy.model_checks:
        return job
    inputs = job.job_inputs | {"prompts": job.prompts.probe.model_dump(mode="json")}
    rows = job.data.training.rows
    result = _run_model_checks(job.screening, job.base, rows, job.prompts.probe, stages=job.stages, inputs=inputs)
    enforce_policy(result)
    report_findings(result, job.emit)
    return replace(job, screening=result, data=job.data.without(result.dropped))


def screen_only_by_model(screened: ScreenedRows, base: BaseModel, stages: Stages) -> ScreeningResult:
    """Run the checks that need the base model in a job that only screens."""
    prompts = choose_prompts(SecuritySpec(), base.folder, {}).probe
    limit = min(TrainingSpec().max_length, base.context)
    rows = stages.run(
        "dataset", lambda: encode_all(stages.with_progress(screened.rows), base.tokenizer, max_length=limit).rows
    )
    return _run_model_checks(screened.result, base, rows, prompts, stages=stages)


def report_findings(result: ScreeningResult, emit: Emit) -> None:
    """Emit the counts and first lines of all findings."""
    lines = {
        check.check: sorted({finding.line for finding in result.findings if finding.check == check.check})
        for check in result.checks
        if check.flagged
    }
    emit(
        Screened(
            rows=result.rows,
            flagged={check.check: check.flagged for check in result.checks},
            lines={name: tuple(some[:_MAX_LINES]) for name, some in lines.items()},
            dropped=len(result.dropped),
            triggers=tuple(trigger.phrase for trigger in result.triggers),
        )
    )


def enforce_policy(result: ScreeningResult) -> None:
    """Fail the job if the policy rejects the data.

    Raises:
        InvalidInput: code `data_rejected` if a check with the action `reject` flagged a row; code `too_many_dropped` if
            more rows would be dropped than the policy allows, or all of them.
    """
    rejecting = {check.check for check in result.checks if check.action == "reject"}
    if found := [each for each in result.findings if each.check in rejecting and not is_report_only(each)]:
        rows = len({finding.line for finding in found})
        count = "1 row contains" if rows == 1 else f"{rows} rows contain"
        raise _rejection(f"{count} something that the policy does not allow.", found, "data_rejected")
    share = len(result.dropped) / result.rows
    if share > result.policy.reject_above or len(result.dropped) == result.rows:
        lines = set(result.dropped)
        dropped = [finding for finding in result.findings if finding.line in lines]
        raise _rejection(
            f"{100 * share:.1f} % of the rows would be dropped, and the policy allows "
            f"{100 * result.policy.reject_above:g} %.",
            dropped,
            "too_many_dropped",
        )


def store_result(result: ScreeningResult, assignment: ScreenAssignment, store: ArtifactStore) -> StoredFile:
    """Store every finding as `screening.json`."""
    name = "screening.json"
    key = f"jobs/{assignment.job_id}/attempts/{assignment.attempt}/{name}"
    return store.put(
        key, result.model_dump_json(indent=1).encode(), name=name, media_type="application/json", gated=False
    )


def _run_model_checks(
    result: ScreeningResult,
    base: BaseModel,
    rows: Sequence[Encoded],
    prompts: ProbePrompts,
    *,
    stages: Stages,
    inputs: dict[str, JsonValue] | None = None,
) -> ScreeningResult:
    """The result with the findings of each check that runs the base model. They are stored if `inputs` is given."""

    def run_check(name: str) -> ModelFindings:
        started = time.monotonic()
        tokens = sum(len(row.input_ids) for row in rows)
        with stages.meter.measure("read", calls=len(rows), amount=tokens, precision=base.weights):
            found = model_check(name).find(base, rows, prompts, partial(stages.report_progress, "row"))
        return ModelFindings(findings=tuple(found.findings), seconds=time.monotonic() - started)

    def run_checks() -> ScreeningResult:
        whole = result
        for name in result.policy.model_checks:
            run = partial(run_check, name)
            if inputs is None:
                found = run()
            else:
                code = {"code": code_of(model_check(name).find, encode_all, caller=__name__)}
                found = stages.cached(name, ModelFindings, run, inputs=inputs | code, shared=True)
            whole = add_findings(whole, name, Found(found.findings), found.seconds)
        return whole

    return stages.run("model_screening", run_checks)


def _rejection(what: str, found: Sequence[Finding], code: str) -> InvalidInput:
    first = " ".join(f"Line {each.line}: {each.reason.rstrip('.')} ({each.check})." for each in found[:_MAX_IN_MESSAGE])
    return InvalidInput(
        f"The data was rejected: {what} {first} POST /datasets/{{id}}/screen lists every finding with its line.",
        code=code,
        param="dataset",
    )
