"""An order checked and completed before it is queued: what can be told without the model and without the data's rows.

Covers: the base model, what else it names of the server's list, LoRA targets, sense between fields, defaults that hang
on the model. Not here: single fields (core.schemas), whether datasets and uploaded prompt sets exist (core.db), whether
a module type exists in the model (the worker finds out).
"""

from collections.abc import Sequence

from core import catalog
from core.catalog import Catalog
from core.errors import InvalidInput
from core.schemas.job import DatasetId, JobSpec, ScreenSpec
from core.schemas.policy import Policy
from core.schemas.screening import BY_MODEL, ScreenRequest
from core.schemas.training import DEFAULT_EPOCHS

_PEFT_NAMES = {f"{name}_proj": name for name in ("q", "k", "v", "o", "gate", "up", "down")}


def complete(spec: JobSpec, listed: Catalog) -> JobSpec:
    """The order with every default filled in, so that what is stored says all that will be done.

    Raises:
        InvalidModel: the base model is not allowed, or its files are not, or a safeguard needs more than they are.
        InvalidInput: fields that do not go together, or a judge, prompt set or benchmark that the list does not have.
    """
    entry = catalog.find(listed.models, spec.base_model)
    _check(spec)
    catalog.check_runs(entry, spec)
    catalog.check_evaluation(listed, spec)
    training = spec.training
    filled = {"learning_rate": training.rate(entry.learning_rate)}
    if training.epochs is None and training.steps is None:
        filled["epochs"] = DEFAULT_EPOCHS
    return spec.model_copy(update={"training": training.model_copy(update=filled)})


def check_policy(spec: JobSpec, policy: Policy) -> None:
    """Whether the order can ever meet its policy: what the policy asks for has to be measured.

    Raises:
        InvalidInput: code `policy_needs_more`.
    """
    families = {attack.family for attack in spec.security.attacks}
    if missing := [family for family in policy.families if family not in families]:
        raise _needs(
            "security.attacks",
            f"the policy has a rule for {', '.join(missing)}, which this job does not run: name it in "
            "security.attacks, or choose a larger suite",
        )
    labels = {judge.label for judge in spec.security.judges}
    if unasked := [judge for judge in policy.judges if judge not in labels]:
        raise _needs(
            "security.judges",
            f"the policy asks for the judge {', '.join(unasked)}: name it in security.judges",
        )


def _needs(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{param}: {reason}.", code="policy_needs_more", param=param)


def screen_order(dataset: DatasetId, asked: ScreenRequest, policy: Policy, listed: Catalog) -> ScreenSpec:
    """A screening as it is stored. With a base model, it is asked unless the request says otherwise.

    Raises:
        InvalidModel: the base model is not allowed, or its files are not.
        InvalidInput: code `invalid_parameter`; a check that needs a base model, without one.
    """
    wanted = asked.screening or policy.screening
    if asked.base_model is not None:
        catalog.find(listed.models, asked.base_model)
        if asked.screening is None:
            silent = [check for check in BY_MODEL if check not in wanted.by_model]
            wanted = wanted.model_copy(update=dict.fromkeys(silent, "report"))
    elif asked.screening is None:
        wanted = wanted.model_copy(update=dict.fromkeys(BY_MODEL, "off"))
    elif wanted.by_model:
        raise _refused("base_model", f"{' and '.join(wanted.by_model)} need a model to ask, so name one")
    return ScreenSpec(dataset=dataset, base_model=asked.base_model, screening=wanted)


def _check(spec: JobSpec) -> None:
    targets = spec.training.lora.targets
    if targets != "all":
        _refuse_repeats(targets, "training.lora.targets")
        for name in targets:
            if name in _PEFT_NAMES:
                reason = f"{name!r} is called {_PEFT_NAMES[name]!r} here"
                raise _refused("training.lora.targets", reason)
    if "\0" in (spec.security.system_prompt or ""):
        raise _refused("security.system_prompt", "it holds a NUL character")
    if spec.validation_dataset == spec.dataset:
        raise _refused(
            "validation_dataset",
            "it is the training data, so the task figures would mean nothing; leave it out to have rows held out",
        )


def _refuse_repeats(names: Sequence[str], param: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise _refused(param, f"{name!r} stands there twice")


def _refused(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{param}: {reason}.", code="invalid_parameter", param=param)
