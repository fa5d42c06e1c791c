"""One example for each body, made of the classes themselves, so that no example can be wrong.

Covers: examples and the `responses` that routes document. Not here: what fields mean (core.schemas), files of a
finished job (api.file_examples).
"""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from api.errors import error_type
from core.schemas.data import DatasetSummary, RowError
from core.schemas.events import Metrics, Progress
from core.schemas.gate import GateReason, GateReply, Override, OverrideRequest
from core.schemas.job import JobSpec, ScreenSpec
from core.schemas.policy import Policy, PolicyRef
from core.schemas.prompts import PromptFileSummary
from core.schemas.replies import (
    ArtifactReply,
    BenchmarkReply,
    DatasetReply,
    ErrorBody,
    ErrorReply,
    EventReply,
    Health,
    JobLinks,
    JobReply,
    JobSummary,
    JudgeReply,
    ModelReply,
    Page,
    PolicyReply,
    PromptSetReply,
    Readiness,
)
from core.schemas.results import Figure
from core.schemas.screening import ScreeningPolicy
from core.schemas.signing import TrustedKey, TrustedKeys

JOB_ID = "job_0f1e2d3c4b5a69788796a5b4"
_DATASET_ID = "ds_5b1f0c9a7e3d2b4c6d8e9f01"
_PROMPT_SET_ID = "ps_5b1f0c9a7e3d2b4c6d8e9f01"
_REVISION = "3f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_THEN = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)

SHORT_ORDER = {"base_model": "testbed", "dataset": _DATASET_ID}
LONG_ORDER = SHORT_ORDER | {
    "training": {
        "epochs": 2,
        "learning_rate": 5e-4,
        "lora": {"rank": 8, "targets": ["q", "v"]},
        "validate_every": 10,
        "patience": 3,
    },
    "strategy": {"kind": "ml_lr", "ratio": 0.05},
    "compare": [{"kind": "uniform"}],
}
GUARDED_ORDER = SHORT_ORDER | {
    "strategy": {
        "kind": "swat",
        "label": "guarded",
        "warmup_ratio": 0.3,
        "safeguards": {"safety_mix": {"share": 0.05}, "constrained_first_tokens": {"tokens": 5}},
    },
    "compare": [
        {"kind": "swat"},
        {
            "kind": "uniform",
            "label": "prompted",
            "safeguards": {"safe_template": {"system_prompt": "Decline what could hurt somebody, and say why."}},
        },
    ],
}
JUDGED_ORDER = SHORT_ORDER | {
    "security": {
        "suite": "quick",
        "attacks": ["direct", {"family": "prefill", "tokens": 4}],
        "prompts": {"harmful": _PROMPT_SET_ID, "safe": "xstest"},
        "judges": [{"kind": "rules"}, {"kind": "strongreject", "model": "house"}],
    },
    "quality": {"domain": "medical", "tasks": [{"kind": "multiple_choice", "benchmark": "college-medicine"}]},
}
DATASET = DatasetReply(
    id=_DATASET_ID,
    name="support.jsonl",
    sha256=_SHA256,
    bytes=48_213,
    columns=None,
    summary=DatasetSummary(
        file_format="jsonl",
        row_format="messages",
        rows=320,
        turns=640,
        assistant_turns=320,
        characters=41_877,
        longest_row_characters=512,
    ),
    created_at=_THEN,
)
_SUMMARY = JobSummary(
    id=JOB_ID,
    status="running",
    stage="training",
    progress=Progress(stage="training", run="ml_lr", fraction=0.42, message="step 120 of 280"),
    error=None,
    attempt=1,
    cancel_requested_at=None,
    created_at=_THEN,
    updated_at=_THEN,
    started_at=_THEN,
    finished_at=None,
    project="default",
    spec=JobSpec.model_validate(SHORT_ORDER),
    gate=None,
    links=JobLinks(
        job=f"/jobs/{JOB_ID}",
        events=f"/jobs/{JOB_ID}/events",
        cancel=f"/jobs/{JOB_ID}/cancel",
        artifacts=f"/jobs/{JOB_ID}/artifacts",
        adapter=None,
        report=None,
        robustness=None,
        answers=None,
    ),
)
FIGURE = Figure(
    run="base",
    suite="direct",
    metric="attack_success_rate",
    judge="rules",
    value=0.0625,
    n=64,
    low=0.0246,
    high=0.15,
)
JOB = JobReply(**dict(_SUMMARY), policy=PolicyRef(), figures=(FIGURE,))
SCREEN_JOB = JOB.model_copy(
    update={
        "status": "queued",
        "stage": None,
        "progress": None,
        "attempt": 0,
        "started_at": None,
        "spec": ScreenSpec(dataset=_DATASET_ID, screening=ScreeningPolicy()),
        "figures": (),
    }
)
_REASON = GateReason(
    code="attack_success_too_high",
    message="Attack success of prefill, judge rules, is 41.2 % (95 % interval 31.1 % to 52.2 %, n = 80): "
    "at most 10 % is allowed.",
)
OVERRIDDEN_JOB = JOB.model_copy(
    update={
        "status": "succeeded",
        "finished_at": _THEN,
        "gate": GateReply(
            outcome="quarantined",
            reasons=(_REASON,),
            policy_version=3,
            available=True,
            overrides=(
                Override(
                    reason="Red team looked at all 80 answers: case SEC-1234.",
                    key_id="0a1b2c3d4e5f",
                    key_name="security",
                    outcome="quarantined",
                    created_at=_THEN,
                ),
            ),
        ),
    }
)
STRICT_POLICY = {
    "attacks": {"max_rate": 0.05, "max_increase": 0.05},
    "families": {"prefill": {"max_rate": 0.2}},
    "base_exceeds_bound": "quarantine",
    "min_answers": 200,
}
JUDGED_POLICY = {
    "judges": ["rules", "strongreject:house"],
    "task": [{"metric": "loss", "bound": 2.5}],
    "screening": {"personal_data": "drop", "poison": "refuse"},
    "job_limits": {"max_rate": 0.2},
}
POLICY = PolicyReply(
    project="default",
    version=3,
    policy=Policy.model_validate(STRICT_POLICY),
    key_id="0a1b2c3d4e5f",
    created_at=_THEN,
)
POLICIES = Page[PolicyReply](data=(POLICY,), has_more=False)
JOBS = Page[JobSummary](data=(_SUMMARY,), has_more=False)
DATASETS = Page[DatasetReply](data=(DATASET,), has_more=False)
EVENTS = Page[EventReply](
    data=(
        EventReply(
            id=17,
            attempt=1,
            created_at=_THEN,
            event=Metrics(run="ml_lr", step=120, total_steps=280, loss=1.84, learning_rate=4.1e-4),
        ),
    ),
    has_more=True,
)
ARTIFACTS = Page[ArtifactReply](
    data=(
        ArtifactReply(
            name="adapter.tar",
            bytes=614_400,
            sha256=_SHA256,
            media_type="application/x-tar",
            url=f"/jobs/{JOB_ID}/adapter",
        ),
    ),
    has_more=False,
)
MODELS = Page[ModelReply](
    data=(
        ModelReply(
            name="testbed",
            description="A small aligned chat model that ships with the service.",
            learning_rate=1e-3,
            source="folder",
            hub_id=None,
            revision=None,
            usable=True,
            problem=None,
        ),
    ),
    has_more=False,
)
PROMPT_SET = PromptSetReply(
    id=_PROMPT_SET_ID,
    name="behaviours.csv",
    source="upload",
    layout="plain",
    sha256=_SHA256,
    bytes=9_120,
    summary=PromptFileSummary(layout="plain", harmful=120, safe=120, categories={"fraud": 70, "hate": 50}, left_out=3),
    created_at=_THEN,
)
PROMPT_SETS = Page[PromptSetReply](
    data=(
        PromptSetReply(
            id="xstest",
            name="xstest",
            source="hub",
            layout="xstest",
            description="Harmless requests that look harmful, and their contrasts.",
            hub_id="org/xstest",
            revision=_REVISION,
            file="xstest_prompts.csv",
        ),
        PROMPT_SET,
    ),
    has_more=False,
)
JUDGES = Page[JudgeReply](
    data=(
        JudgeReply(
            name="house",
            description="Our own large chat model.",
            protocol="chat",
            kinds=("rubric", "strongreject"),
            source="endpoint",
            model="large-chat",
            revision=None,
        ),
    ),
    has_more=False,
)
BENCHMARKS = Page[BenchmarkReply](
    data=(
        BenchmarkReply(
            name="college-medicine",
            description="Questions of MMLU.",
            domain="medical",
            source="file",
            hub_id=None,
            revision=None,
            file=None,
        ),
    ),
    has_more=False,
)
SIGNING_KEYS = TrustedKeys(
    keys=(
        TrustedKey(
            keyid=_SHA256,
            public_key="-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA...\n-----END PUBLIC KEY-----\n",
            created_at=_THEN,
            retired_at=None,
        ),
    )
)
OVERRIDE = OverrideRequest(reason="Red team looked at all 80 answers: case SEC-1234.")
HEALTH = Health()
READY = Readiness(database="up", broker="up")

_ERRORS: dict[int, tuple[str, str, str, str | None]] = {
    400: (
        "Cannot be done as asked",
        "invalid_parameter",
        "training.lora.targets: 'q_proj' is called 'q' here.",
        "training.lora.targets",
    ),
    401: (
        "No valid API key",
        "invalid_api_key",
        "This API key is not valid. Send `Authorization: Bearer <key>` with one that is.",
        None,
    ),
    403: (
        "The key has no right to do this, or the gate withholds it",
        "adapter_quarantined",
        f"What job {JOB_ID} trained is quarantined: it failed the policy.",
        None,
    ),
    404: ("No such thing", "not_found", f"There is no job '{JOB_ID}'.", "job_id"),
    409: (
        "The job is not in a state for this",
        "job_not_finished",
        f"Job {JOB_ID} is running: its files are there when it has succeeded.",
        None,
    ),
    413: (
        "Too large",
        "too_large",
        "The request is larger than 1048576 bytes, which is as much as this server takes here.",
        None,
    ),
    416: (
        "The range begins behind the file's end",
        "range_not_satisfiable",
        "The file has 614400 bytes: the range begins behind its end.",
        None,
    ),
    422: (
        "Malformed: a field is missing, unknown or of the wrong kind",
        "invalid_parameter",
        "strategy.ratio: Input should be less than or equal to 1",
        "strategy.ratio",
    ),
    503: (
        "A part of the service is down; try again",
        "database_unavailable",
        "The database cannot be reached. Nothing was changed; try again in a moment.",
        None,
    ),
    507: (
        "The server's disk is full",
        "storage_full",
        "The server's disk is full. Nothing was stored; free some space and try again.",
        None,
    ),
}
REFUSED_ROWS = ErrorReply(
    error=ErrorBody(
        message="2 rows cannot be used. The first: line 12: the last turn is not an assistant's.",
        type="invalid_request_error",
        param="file",
        code="invalid_dataset",
        details=(
            RowError(line=12, column="messages", reason="the last turn is not an assistant's"),
            RowError(line=40, column="messages[1].content", reason="null stands where a text should"),
        ),
        count=2,
    )
)
REFUSED_PROMPTS = ErrorReply(
    error=ErrorBody(
        message="line 3, text: the text is empty; 1 row is invalid.",
        type="invalid_request_error",
        param="file",
        code="invalid_prompt_set",
        details=(RowError(line=3, column="text", reason="the text is empty"),),
        count=1,
    )
)
NOT_READY = ErrorReply(
    error=ErrorBody(
        message="Not ready: database down.",
        type="service_error",
        param=None,
        code="not_ready",
        readiness=Readiness(database="down", broker="up"),
    )
)

Responses = dict[int | str, dict[str, Any]]
"""What FastAPI takes as `responses`."""


def dump(value: BaseModel) -> object:
    """An example as plain JSON; what an error does not say is left out."""
    return value.model_dump(mode="json", exclude_none=isinstance(value, ErrorReply))


def answer(status: int, description: str, example: BaseModel) -> Responses:
    """One documented response."""
    return {status: {"description": description, "content": {"application/json": {"example": dump(example)}}}}


def errors(*statuses: int) -> Responses:
    """Documented errors."""
    found: Responses = {}
    for status in statuses:
        description, code, message, param = _ERRORS[status]
        body = ErrorBody(message=message, type=error_type(status), param=param, code=code)
        found |= failure(status, description, ErrorReply(error=body))
    return found


def failure(status: int, description: str, example: ErrorReply) -> Responses:
    """One documented error with an example of its own."""
    return {status: {"model": ErrorReply, **answer(status, description, example)[status]}}
