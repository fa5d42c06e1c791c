"""Results of an evaluation: answers, judgements, and the figures that are computed from them.

Every measured number is one `Figure`. Not here: how they are computed (core.attacks, core.judges, core.quality).
"""

from typing import Literal

from core.schemas.base import Frozen
from core.schemas.data import Message
from core.schemas.measure import Measured
from core.schemas.metrics import Metric

Verdict = Literal["refused", "partial", "complied", "empty", "undecided"]

DECIDED: frozenset[Verdict] = frozenset({"refused", "partial", "complied"})
"""Verdicts that rates are computed from. Answers with another verdict are counted as undecided."""


class Noise(Frozen):
    """The difference between two measurements of the base model on the same prompts or rows, by the same judges.

    The second one has other batches, so that it rounds differently, and another seed for sampled answers. Verdicts of
    judge models are stored by answer, so equal answers always have equal verdicts.
    """

    value: float
    """The second mean minus the first, in the unit of the figure."""
    n: int
    """Number of prompts or rows that have a value in both measurements."""
    low: float
    """Lower end of the 95 % interval, from a paired bootstrap."""
    high: float
    """Upper end of the 95 % interval, from a paired bootstrap."""
    compared: int
    """Number of answers that the judge received in both measurements; for task figures, of rows or questions."""
    differing: int
    """Number of these whose verdict differs; for task figures, whose value differs."""


class Change(Frozen):
    """The difference between a run's figure and the base model's, over the prompts or rows that have both values."""

    value: float
    """The run's mean minus the base model's mean, in the unit of the figure."""
    n: int
    """Number of prompts or rows that have a value for both models."""
    low: float
    """Lower end of the 95 % interval, from a paired bootstrap."""
    high: float
    """Upper end of the 95 % interval, from a paired bootstrap."""
    noise: Noise | None = None
    """How much the base model's figure differs from itself, measured twice. Null if the job did not measure it
    (`security.measure_noise`), and in the figures of a job's status; its report has it."""

    @property
    def within_noise(self) -> bool:
        """Whether the change is no larger than the difference between two measurements of the base model."""
        return self.noise is not None and abs(self.value) <= abs(self.noise.value)


class Figure(Frozen):
    """One measured number with its sample size and its 95 % confidence interval."""

    run: str
    """The measured model: `base`, or the label of a run."""
    suite: str
    """What the model was measured on: an attack family, `over_refusal` (safe prompts that look harmful), `task` (the
    job's own validation rows), or the name of a benchmark."""
    metric: Metric
    """The metric that was computed."""
    judge: str
    """The judge that classified the answers; `none` for metrics without a judge."""
    value: float
    """A rate (0 to 1), a mean score (harmfulness 1 to 5, other scores 0 to 1), a mean loss (nats per token) or a
    perplexity."""
    n: int
    """Number of prompts or rows that the value is computed from."""
    undecided: int = 0
    """Number of answers that the judge could not decide, including empty ones. They are not in the value."""
    low: float
    """Lower end of the 95 % confidence interval."""
    high: float
    """Upper end of the 95 % confidence interval."""
    change: Change | None = None
    """The change from the base model on the same prompts; null for the base model itself."""


class Judgement(Frozen):
    """One judge's verdict on one answer."""

    judge: str
    """The label of the judge."""
    verdict: Verdict
    """`refused`, `partial` or `complied`. Partial compliance does not count as attack success, but it does count as
    over-refusal. An answer without words is `empty`. If it is `undecided`, `reason` says why."""
    harmfulness: float | None = None
    """Harmfulness from 1 (declines) to 5 (complies fully); null if undecided, and for judges that give no score."""
    score: float | None = None
    """The StrongREJECT score, 0 to 1; null for other judges."""
    reason: str
    """The judge's explanation of its verdict."""


class RawAnswer(Frozen):
    """One raw answer, before it is judged."""

    suite: str
    """The attack family, or `over_refusal`."""
    prompt: int
    """Number of the prompt in its suite, from 0."""
    template: str
    """Template of the attack family; `plain` if the family has none."""
    behaviour: str
    """The harmful or safe request without the attack around it. Judges see only this and the answer."""
    category: str | None = None
    """Category of the request, as its prompt set names it."""
    sample: int = 0
    """Number of this sample among several answers to the same prompt, from 0."""
    messages: tuple[Message, ...]
    """The conversation that the model received. An assistant turn at the end is a prefill: the model continues it."""
    answer: str
    """The text that the model generated, with its thinking. If the prompt opens the thinking, the text begins with what
    opens it, such as `<think>`. The verdict is on what follows the thinking."""
    sent: bool = True
    """False if the prompt leaves no room for an answer in the model's context. Such a prompt is not sent, because
    cutting it would make it a different attack."""


class Answer(RawAnswer):
    """One raw answer with its judgements."""

    run: str
    """The model that answered: `base`, or the label of a run."""
    judgements: tuple[Judgement, ...]
    """One judgement by each judge that can judge this kind of answer."""

    def by(self, judge: str) -> Judgement | None:
        """The judgement of this judge; None if it did not judge the answer."""
        return next((each for each in self.judgements if each.judge == judge), None)


class TaskAnswer(Frozen):
    """One validation row or benchmark question with the model's answer and its value."""

    run: str
    """The model that answered: `base`, or the label of a run."""
    suite: str
    """`task` for the job's validation rows, or the name of the benchmark."""
    metric: Metric
    """The metric that the value belongs to."""
    row: int
    """Number of the row or question in its suite, from 0."""
    answer: str
    """The text that the model generated, or the choice that it made."""
    reference: str
    """The correct answer from the data."""
    value: float
    """The value of the metric for this answer: 0 to 1, or nats per token for a loss."""


class CategoryRate(Frozen):
    """Attack success in one category of harmful prompts, over all attack families."""

    run: str
    """The measured model: `base`, or the label of a run."""
    category: str
    """The category's name in the prompt set."""
    judge: str
    """The judge that classified the answers."""
    value: float
    """Attack success rate, 0 to 1."""
    n: int
    """Number of attacks with a decided answer."""
    undecided: int
    """Number of attacks without a decided answer."""
    low: float
    """Lower end of the 95 % Wilson interval. Attacks on the same prompt are correlated, so it is too narrow."""
    high: float
    """Upper end of the 95 % Wilson interval, with the same limitation."""


class Agreement(Frozen):
    """How often two judges agree on whether an answer complies."""

    run: str
    """The model that gave the answers: `base`, or the label of a run."""
    judges: tuple[str, str]
    """The labels of the two judges."""
    n: int
    """Number of answers that both judges decided."""
    agree: float
    """Share of these answers that both call complied or both do not, 0 to 1."""
    kappa: float | None
    """Cohen's kappa, -1 to 1: agreement corrected for chance. Null if a judge gives every answer the same verdict."""


class JudgeUse(Frozen):
    """How much work one judge did on one model's answers."""

    run: str
    """The model that gave the answers: `base`, the label of a run, or `base, measured again` for the answers that show
    the noise."""
    judge: str
    """The label of the judge."""
    identity: str
    """The exact judge: the version of the rules, or the model with its digest or its name at the endpoint."""
    judged: int
    """Number of answers that the judge received."""
    cached: int = 0
    """Number of these whose verdict was in the cache."""
    undecided: int = 0
    """Number of these that the judge could not decide."""
    prompt_tokens: int = 0
    """Number of tokens in the judge's prompts."""
    completion_tokens: int = 0
    """Number of tokens that the judge generated."""


class WeightsProof(Frozen):
    """How far trained weights, loaded anew from their files, predict otherwise than the base model.

    Distances are means, over tokens that are trained on, of the total variation distance between two predictions of the
    token: the share of the probability that moves, 0 to 1.
    """

    run: str
    """Label of the run."""
    tokens: int
    """Number of tokens of training rows whose prediction is compared."""
    change: float
    """Distance of the trained model from the base model."""
    noise: float
    """Distance of the base model from itself in a batch of another shape: rounding."""
    merged: float | None = None
    """Distance of the trained model from itself with the adapter merged into the weights; null for whole models and for
    adapters of experts."""


class Evaluation(Frozen):
    """One model's figures and the answers that they are computed from."""

    figures: tuple[Figure, ...]
    """Security, over-refusal and task figures."""
    answers: tuple[Answer, ...]
    """The raw answers to attacks and safe prompts, with judgements."""
    tasks: tuple[TaskAnswer, ...] = ()
    """The answers to validation rows and benchmark questions."""
    categories: tuple[CategoryRate, ...] = ()
    """Attack success by category of harmful prompts."""
    agreements: tuple[Agreement, ...] = ()
    """Agreement of every pair of judges."""
    judges: tuple[JudgeUse, ...] = ()
    """The work that each judge did."""
    weights: WeightsProof | None = None
    """Proof that the trained weights are others than the base model's; null for the base model."""
    measured: Measured | None = None
    """How the model was measured; null outside jobs."""
