"""The rules about one order: what can be checked without the base model's weights and without the rows.

Covers: the base model, what else the order names of the server's list, LoRA targets, fields that exclude each other,
defaults that depend on the base model, rules of the policy. Not here: single fields (core.schemas), whether uploads
exist (core.orders.place), whether the base model has a module type (the worker finds out).
"""

from collections.abc import Mapping
from typing import TypeVar

from core import catalog
from core.catalog import Catalog
from core.errors import InvalidInput
from core.schemas.data import DatasetSummary
from core.schemas.job import JobSpec
from core.schemas.judges import ModelJudgeOptions
from core.schemas.policy import Policy
from core.schemas.quality import MultipleChoice
from core.schemas.training import DEFAULT_EPOCHS

_PEFT_NAMES = {f"{name}_proj": name for name in ("q", "k", "v", "o", "gate", "up", "down")}

_Entry = TypeVar("_Entry")


def complete(spec: JobSpec, listed: Catalog) -> JobSpec:
    """The order with every default filled in, so that the stored order is explicit.

    Raises:
        InvalidModel: the base model is not allowed, its files cannot be used, or a safeguard needs another model.
        InvalidInput: fields exclude each other, or the server's list has no such judge, prompt set or benchmark.
    """
    entry = catalog.find(listed.models, spec.base_model)
    _check_fields(spec)
    catalog.check_runs(entry, spec)
    check_evaluation(listed, spec)
    training = spec.training
    filled = {"learning_rate": training.rate(entry.learning_rate)}
    if training.epochs is None and training.steps is None:
        filled["epochs"] = DEFAULT_EPOCHS
    return spec.model_copy(update={"training": training.model_copy(update=filled)})


def check_policy(spec: JobSpec, policy: Policy) -> None:
    """Check that the job measures everything its policy decides by.

    Raises:
        InvalidInput: code `policy_needs_more`.
    """
    families = {attack.family for attack in spec.security.attacks}
    if missing := [family for family in policy.families if family not in families]:
        raise _invalid(
            "security.attacks",
            f"the policy has a rule for {', '.join(missing)}, which this job does not run: add it to "
            "security.attacks, or choose a larger suite",
            code="policy_needs_more",
        )
    labels = {judge.label for judge in spec.security.judges}
    if missing := [judge for judge in policy.judges if judge not in labels]:
        raise _invalid(
            "security.judges",
            f"the policy requires the judge {', '.join(missing)}: add it to security.judges",
            code="policy_needs_more",
        )


def check_rows(summary: DatasetSummary, spec: JobSpec) -> None:
    """Check that rows can be held out for validation, if the order names no validation dataset.

    Raises:
        InvalidInput: code `too_few_rows`.
    """
    if summary.rows < 2 and spec.validation_dataset is None:
        raise _invalid(
            "dataset",
            f"it has {summary.rows} row, and one must be held out for validation: add rows, or name a "
            "validation_dataset",
            code="too_few_rows",
        )


def check_evaluation(listed: Catalog, spec: JobSpec) -> None:
    """Check that the server's list has every judge, prompt set and benchmark that the order names.

    Raises:
        InvalidInput: code `unknown_judge`, `judge_protocol_mismatch`, `unknown_prompt_set` or `unknown_benchmark`.
    """
    for judge in spec.security.judges:
        if isinstance(judge, ModelJudgeOptions):
            entry = _listed(listed.judges, judge.model, "judge", "security.judges")
            if problem := judge.mismatch(entry):
                raise _invalid("security.judges", problem, code="judge_protocol_mismatch")
    for name in catalog.listed_prompts(spec.security.prompts).values():
        _listed(listed.prompt_sets, name, "prompt set", "security.prompts")
    for task in spec.quality.tasks or ():
        if isinstance(task, MultipleChoice):
            _listed(listed.benchmarks, task.benchmark, "benchmark", "quality.tasks")


def _listed(entries: Mapping[str, _Entry], name: str, what: str, param: str) -> _Entry:
    if name not in entries:
        there = f"It has: {', '.join(sorted(entries))}" if entries else "It has none"
        raise _invalid(
            param, f"the server's list has no {what} {name!r}. {there}", code=f"unknown_{what.replace(' ', '_')}"
        )
    return entries[name]


def _check_fields(spec: JobSpec) -> None:
    targets = spec.training.lora.targets
    for name in targets if targets != "all" else ():
        if targets.count(name) > 1:
            raise _invalid("training.lora.targets", f"{name!r} is named twice")
        if name in _PEFT_NAMES:
            raise _invalid("training.lora.targets", f"{name!r} is not a module type: use {_PEFT_NAMES[name]!r}")
    if "\0" in (spec.security.system_prompt or ""):
        raise _invalid("security.system_prompt", "it contains a NUL character")
    if spec.validation_dataset == spec.dataset:
        raise _invalid(
            "validation_dataset",
            "it is the training data, so the task figures would be meaningless: leave it out to hold out some rows",
        )


def _invalid(param: str, reason: str, *, code: str = "invalid_parameter") -> InvalidInput:
    return InvalidInput(f"{param}: {reason}.", code=code, param=param)
