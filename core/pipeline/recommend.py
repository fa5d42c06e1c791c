"""Recommended settings of a job, from a check of its base model. Each reason is a measurement, an estimate or a rule.

Not here: measuring (core.pipeline.modelcheck), warnings about a job's data (core.pipeline.advise).
"""

from collections.abc import Sequence

from core.schemas.measure import Measure
from core.schemas.modelcheck import RefusalCheck, Setting, TrainingMemory
from core.schemas.strategy import RECOMMENDED, title
from core.schemas.training import Method, TrainingSpec

_METHODS: tuple[Method, ...] = ("lora", "qlora")
"""Methods in the order in which they are recommended. `full` is not: it needs the most memory."""
_MUCH_MORE = 1.1


def recommend(
    estimates: Sequence[TrainingMemory], refusals: RefusalCheck, *, learning_rate: float, memory_bytes: int
) -> tuple[Setting, ...]:
    """The settings, each with its reason. Without a fitting estimate, those about memory are left out."""
    return (
        *_memory(estimates, memory_bytes),
        Setting(
            name="training.learning_rate",
            value=learning_rate,
            reason="The rate of the model's entry in the server's list; it was not tuned for this model here.",
        ),
        *_measure(),
        *_protection(refusals),
    )


def _memory(estimates: Sequence[TrainingMemory], memory_bytes: int) -> list[Setting]:
    fitting = [each for each in estimates if each.fits]
    method = next((each for each in _METHODS if any(fit.method == each for fit in fitting)), None)
    if method is None:
        return []
    fitting = [each for each in fitting if each.method == method]
    length = max(each.length for each in fitting)
    best = max((each for each in fitting if each.length == length), key=lambda each: each.batch_size)
    needs = f"an estimated {best.memory.total / 1e9:.1f} of {memory_bytes / 1e9:.1f} GB"
    full = next(
        each
        for each in estimates
        if (each.method, each.length, each.batch_size) == ("full", best.length, best.batch_size)
    )
    more = full.memory.total / best.memory.total
    found = [
        Setting(
            name="training.method",
            value=method,
            reason=f"It needs {needs} at these settings; full fine-tuning needs "
            + (f"{more:.1f} times that." if more >= _MUCH_MORE else "about as much for this small model."),
        ),
        Setting(
            name="training.max_length",
            value=length,
            reason="The longest of the checked lengths that fits in the worker's memory.",
        ),
    ]
    if best.batch_size < TrainingSpec().batch_size:
        found.append(
            Setting(
                name="training.micro_batch_size",
                value=best.batch_size,
                reason=f"The largest of the checked batch sizes that fits at {length} tokens: {needs}. The gradient of "
                "a step is the same.",
            )
        )
    return found


def _measure() -> list[Setting]:
    pinned = Measure()
    return [
        Setting(
            name="security.suite",
            value="standard",
            reason=f"The built-in policy decides by its {len(pinned.attacks)} attack families; a job with fewer is "
            "undecided.",
        ),
        Setting(
            name="security.max_prompts",
            value=pinned.min_prompts,
            reason=f"The built-in policy needs {pinned.min_prompts} prompts per family.",
        ),
    ]


def _protection(refusals: RefusalCheck) -> list[Setting]:
    if not refusals.protectable:
        return []
    return [
        Setting(
            name="strategy",
            value="recommended",
            reason=f"It is {title(RECOMMENDED)}: docs/strategies-and-safeguards.md has what it was measured against.",
        )
    ]
