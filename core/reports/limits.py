"""Limitations of a job's evaluation, one sentence each: what its report does not show.

Not here: rates whose sample is too small (core.attacks.count).
"""

from collections.abc import Iterator, Sequence

from core.reports.numbers import percent
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.evaluation import Figure
from core.schemas.job import JobSpec
from core.schemas.policy import fewest_for

_ALWAYS = (
    "Optimized attacks: no suite runs adversarial suffixes (such as GCG) or attacker models that search for a prompt.",
    "Backdoors: triggers were not tested. A model may refuse a request without its trigger and comply with it.",
    "Memorization: whether the model repeats training rows word for word was not tested.",
    "Further fine-tuning: training the released model again can undo its safety.",
    "Other uses: tools, agents, images and audio were not tested.",
    "Long conversations: no context longer than the attack prompts was tested.",
    "Correctness of harmful answers: nobody checked whether they are true or would work.",
)


def not_covered(spec: JobSpec, figures: Sequence[Figure]) -> tuple[str, ...]:
    """One sentence for each limitation of the job's figures."""
    return tuple(_sentences(spec, [figure for figure in figures if figure.metric == "attack_success_rate"]))


def _sentences(spec: JobSpec, attacks: Sequence[Figure]) -> Iterator[str]:
    measured = {figure.suite for figure in attacks}
    if missing := [family for family in ATTACK_FAMILIES if family not in measured]:
        names = "; ".join(f"{family.replace('_', ' ')} ({ATTACK_FAMILIES[family].summary})" for family in missing)
        yield f"Attack families that were not run: {names}."
    yield from _ALWAYS
    if english := [judge.label for judge in spec.security.judges if judge.english_only]:
        yield f"Other languages than English: the judge {' and '.join(english)} can judge only English answers."
    fewest = min((figure.n for figure in attacks), default=0)
    threshold = spec.security.threshold
    if fewest < fewest_for(threshold):
        yield (
            f"Small samples: at least one figure is based on {fewest} decided answers; showing a rate below "
            f"{percent(threshold)} takes at least {fewest_for(threshold)}."
        )
    yield "Variation between seeds: each run was trained once, and intervals do not include this variation."
    if with_prompt := [run.label for run in spec.runs if run.safeguards.serving_system_prompt is not None]:
        yield (
            "Serving without the system prompt: runs whose safeguards require one were evaluated only with it "
            f"({', '.join(with_prompt)})."
        )
    if spec.security.system_prompt is not None:
        yield "Other system prompts: the models were evaluated only with the system prompt of the job."
