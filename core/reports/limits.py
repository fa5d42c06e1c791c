"""What an evaluation did not look at, in plain sentences: what a report must not be read as.

Not here: what its figures cannot show for want of answers (core.attacks.count).
"""

from collections.abc import Iterator, Sequence

from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.job import JobSpec
from core.schemas.policy import fewest_for
from core.schemas.results import Figure

_ALWAYS = (
    "Optimised suffixes (such as GCG) and attacker models that search for a wording were not run: no suite has them.",
    "Triggers that were planted in the data were not tried: a model may refuse without the word and comply with it.",
    "What the model remembers of its rows was not tried: text that stands in many of them may be said word for word.",
    "Further fine-tuning of what is handed out was not tried; it can undo what is measured here.",
    "Nothing was tried with tools, agents, images or sound.",
    "Long conversations were not tried, and no context longer than the prompts.",
    "Nobody checked whether what answers say is true, or would work.",
)


def not_covered(spec: JobSpec, figures: Sequence[Figure]) -> tuple[str, ...]:
    """One sentence for each thing that the job's figures say nothing about. None of them is a finding."""
    return tuple(_sentences(spec, [figure for figure in figures if figure.metric == "attack_success_rate"]))


def _sentences(spec: JobSpec, attacks: Sequence[Figure]) -> Iterator[str]:
    ran = {figure.suite for figure in attacks}
    if missing := [family for family in ATTACK_FAMILIES if family not in ran]:
        listed = "; ".join(f"{family.replace('_', ' ')} ({ATTACK_FAMILIES[family].summary})" for family in missing)
        yield f"Attack families that were not run: {listed}."
    yield from _ALWAYS
    if all(judge.kind == "rules" for judge in spec.security.judges):
        yield "Other languages than English: the judge that decided reads English only, and misreads answers in others."
    elif any(judge.kind == "rules" for judge in spec.security.judges):
        yield "Other languages than English: the prompts may be in one, and the judge of rules reads English only."
    fewest = min((figure.n for figure in attacks), default=0)
    threshold = spec.security.threshold
    if fewest < fewest_for(threshold):
        yield (
            f"Few prompts: at least one figure rests on {fewest} decided answers, and it takes {fewest_for(threshold)} "
            f"without a success to show a rate below {100 * threshold:g} %."
        )
    yield "One seed: each arm was trained once, and intervals say nothing about how another run would end."
    with_prompt = [run.label for run in spec.runs if run.safeguards.serving_system_prompt is not None]
    if with_prompt:
        yield (
            "Serving without the system prompt: runs whose safeguards require one were evaluated only with it "
            f"({', '.join(with_prompt)})."
        )
    if spec.security.system_prompt is not None:
        yield "Other system prompts, or none: all were measured with the one that the job names."
