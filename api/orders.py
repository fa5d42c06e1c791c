"""An order checked and completed before it is queued: what can be told without the model and without the data's rows.

Covers: the base model, what else it names of the server's list, LoRA targets, sense between fields, defaults that hang
on the model. Not here: single fields (core.spec), whether datasets and uploaded prompt sets exist (core.db), whether a
module type exists in the model (the worker finds out).
"""

from collections.abc import Sequence

from core import catalog
from core.catalog import Catalog
from core.errors import InvalidInput
from core.spec.job import JobSpec
from core.spec.training import DEFAULT_EPOCHS

_PEFT_NAMES = {f"{name}_proj": name for name in ("q", "k", "v", "o", "gate", "up", "down")}


def complete(spec: JobSpec, listed: Catalog) -> JobSpec:
    """The order with every default filled in, so that what is stored says all that will be done.

    Raises:
        InvalidModel: the base model is not allowed, or its files are not, or a safeguard needs more than they are.
        InvalidInput: fields that do not go together, or a judge, prompt set or benchmark that the list does not have.
    """
    entry = catalog.find(listed.models, spec.base_model)
    _check(spec)
    catalog.check_arms(entry, spec)
    catalog.check_evaluation(listed, spec)
    training = spec.training
    filled = {"learning_rate": training.rate(entry.learning_rate)}
    if training.epochs is None and training.steps is None:
        filled["epochs"] = DEFAULT_EPOCHS
    return spec.model_copy(update={"training": training.model_copy(update=filled)})


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
