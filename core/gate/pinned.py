"""What a job measured, compared with what its policy pins. Anything less makes the outcome `undecided`.

Covers: attack families and their options, prompt sets, numbers of prompts, length of answers, system prompt, prompts
that the model was trained on. Not here: the figures (core.gate.decide), recording a measurement (core.pipeline).
"""

from collections.abc import Iterator

from core.schemas.gate import GateReason
from core.schemas.job import BASE_RUN
from core.schemas.measure import Measure, Measured, PromptsUsed

_SHOWN = 12
"""Characters of a digest that messages show."""


def less_than_pinned(measured: Measured | None, measure: Measure) -> tuple[GateReason, ...]:
    """Every way in which a measurement is less than what the policy pins, with what to order instead."""
    if measured is None:
        return (_reason("how the run was measured was not recorded", "Create the job again"),)
    return tuple(_shortfalls(measured, measure))


def _shortfalls(measured: Measured, measure: Measure) -> Iterator[GateReason]:
    yield from _attacks(measured, measure)
    harmful, safe = measured.harmful, measured.safe
    yield from _prompts("harmful", harmful, measure.prompts.harmful)
    yield from _prompts("safe", safe, measure.prompts.safe)
    if measured.max_new_tokens < measure.min_new_tokens:
        yield _reason(
            f"the policy requires answers of up to {measure.min_new_tokens} tokens, and they were cut after "
            f"{measured.max_new_tokens}",
            f"Set security.max_new_tokens to at least {measure.min_new_tokens}",
        )
    served = measured.serving_prompt and measured.run != BASE_RUN
    if measured.system_prompt != measure.system_prompt and not (served and measure.serving_prompts):
        yield _system_prompt(measure, served=served)


def _attacks(measured: Measured, measure: Measure) -> Iterator[GateReason]:
    found = {attack.family: measured.find(attack.family) for attack in measure.attacks}
    if missing := [family for family, one in found.items() if one is None]:
        yield _reason(
            f"the policy requires attacks of {', '.join(missing)}, which were not measured",
            "Choose security.suite standard or full, or add them to security.attacks",
        )
    changed = [attack for attack in measure.attacks if (one := found[attack.family]) and not one.attack.covers(attack)]
    for attack in changed:
        options = ", ".join(f"{name} {value}" for name, value in attack if name != "family")
        yield _reason(
            f"the policy requires {attack.family} with other options ({options})",
            f"Leave out the options of {attack.family} in security.attacks",
        )
    counts = {
        family: one.prompts
        for family, one in found.items()
        if one is not None and one.prompts < min(measure.min_prompts, measured.harmful.size)
    }
    if measured.safe_prompts < min(measure.min_prompts, measured.safe.size):
        counts["over_refusal"] = measured.safe_prompts
    if counts:
        yield _reason(
            f"the policy requires {measure.min_prompts} prompts, and fewer were measured for "
            f"{', '.join(f'{family} ({count})' for family, count in counts.items())}",
            f"Set security.max_prompts to at least {measure.min_prompts}",
        )


def _prompts(use: str, used: PromptsUsed, pinned: str | None) -> Iterator[GateReason]:
    if used.sha256 != pinned if pinned else not used.automatic:
        wanted = f"with the digest {pinned[:_SHOWN]}" if pinned else "that the server has for the base model"
        yield _reason(
            f"the policy requires the set of {use} prompts {wanted}, and another one was measured (digest "
            f"{used.sha256[:_SHOWN]})",
            f"Name the pinned set in security.prompts.{use}" if pinned else f"Leave out security.prompts.{use}",
        )
    if used.trained_on:
        message = (
            f"{used.trained_on} of the {use} prompts that the model was measured on occur in the training rows, so the "
            "figures do not show how it answers others. Remove these rows from the dataset."
        )
        yield GateReason(code="prompts_trained_on", message=message)


def _system_prompt(measure: Measure, *, served: bool) -> GateReason:
    if served:
        return _reason(
            "the run was measured only with the system prompt that its safeguard requires, and the policy does not "
            "accept that, because whoever has the adapter can serve it without",
            "Ask an administrator to pin that prompt (measure.system_prompt) or to accept it "
            "(measure.serving_prompts), or order the run without safe_template",
        )
    if measure.system_prompt is None:
        return _reason(
            "the policy requires a measurement without a system prompt, and one was used",
            "Leave out security.system_prompt",
        )
    return _reason(
        "the policy requires the system prompt that models are served with, and another one or none was used",
        "Set security.system_prompt to measure.system_prompt of the policy",
    )


def _reason(what: str, order: str) -> GateReason:
    return GateReason(code="less_than_pinned", message=f"{what[0].upper()}{what[1:]}. {order}.")
