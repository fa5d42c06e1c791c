"""How a model was measured, and why the gate cannot release what is measured so.

Not here: measuring (core.pipeline.evaluate), deciding (core.gate).
"""

from core.gate import less_than_pinned
from core.pipeline.context import JobContext
from core.schemas.evaluation import Answer, Evaluation
from core.schemas.measure import Measured, MeasuredAttack
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.policy import Policy
from core.schemas.security import SecuritySpec
from core.thinking import split_thinking


def record(job: JobContext, spec: SecuritySpec, found: Evaluation, *, serving: bool) -> Measured:
    """How one model was measured. Prompts and the system prompt come from its answers, not from the order.

    `spec` is what the answers were collected with; `serving` is whether a safeguard requires its system prompt.
    """
    (run,) = {answer.run for answer in found.answers}
    (system,) = {_system_prompt(answer) for answer in found.answers}
    prompts: dict[str, set[int]] = {}
    for answer in found.answers:
        prompts.setdefault(answer.suite, set()).add(answer.prompt)
    used = {use: each.model_copy(update={"trained_on": job.trained_on[use]}) for use, each in job.prompt_sets.items()}
    return Measured(
        run=run,
        attacks=tuple(
            MeasuredAttack(attack=attack, prompts=len(prompts[attack.family]))
            for attack in spec.attacks
            if attack.family in prompts
        ),
        safe_prompts=len(prompts.get(OVER_REFUSAL, ())),
        harmful=used["harmful"],
        safe=used["safe"],
        max_new_tokens=spec.max_new_tokens,
        system_prompt=system,
        serving_prompt=serving,
        answers=len(found.answers),
        thinking=sum(bool(split_thinking(answer.answer, opened=False).thinking) for answer in found.answers),
    )


def _system_prompt(answer: Answer) -> str | None:
    first = answer.messages[0]
    return first.content if first.role == "system" else None


def why_not_released(evaluation: Evaluation, policy: Policy) -> str | None:
    """Why the gate will not release what is measured like the base model; None if it may."""
    short = {
        figure.suite: (figure.n, policy.needed(rule))
        for figure in evaluation.figures
        if figure.metric == "attack_success_rate"
        and (rule := policy.rule(figure.suite)) is not None
        and figure.n < policy.needed(rule)
    }
    missing = less_than_pinned(evaluation.measured, policy.measure) if policy.measure is not None else ()
    if short:
        needed = max(needed for _, needed in short.values())
        also = " It also measures less than the policy pins (`measure`)." if missing else ""
        return (
            f"The policy needs {needed} decided answers, and there are fewer for "
            f"{', '.join(f'{suite} ({n})' for suite, (n, _) in short.items())}. Raise security.max_prompts or use a "
            f"larger prompt set.{also}"
        )
    return " ".join(reason.message for reason in missing) or None
