"""Compares arms with uniform at equal validation loss. Pure.

An arm that learns less is safer at the end of its run, so curves are read where they first reach the lowest loss that
both reach; the base model is the first point of every curve. Not here: how runs are made (research.real.run).
"""

from collections.abc import Callable, Sequence
from functools import partial

from core.schemas.base import Frozen
from research.experiments.compare import interval, read_at
from research.experiments.spec import Interval
from research.experiments.tables import aligned, cell
from research.real.measure import JUDGES, Point
from research.real.store import FinishedRun


class Comparison(Frozen):
    """One arm over its seeds. Reductions are uniform's figure less the arm's: positive is safer."""

    arm: str
    rate: float
    attack_success: Interval
    """At the end, by `rules`, in per cent."""
    attack_success_phrases: Interval
    """At the end, by refusal phrases."""
    newly_complying: Interval
    """At the end, by `rules`, of the requests that the base model refuses by both judges, in per cent."""
    incoherent: Interval
    """Answers that are no sentences, at the end, in per cent."""
    over_refusal: Interval
    """At the end, in per cent."""
    loss: Interval
    """Validation loss at the end, nats per token."""
    rouge: Interval
    """At the end, 0 to 1."""
    worst_attack_success: Interval
    """The highest of the whole run, by `rules`, in per cent."""
    reduction_at_equal_loss: Interval
    """Points of attack success by `rules`, where both first reach the lowest loss that both reach."""
    reduction_at_equal_loss_phrases: Interval
    """The same by refusal phrases."""
    seconds: Interval
    """Duration of the training, relative to uniform's."""


def compare_arm(base: Point, uniform: Sequence[FinishedRun], runs: Sequence[FinishedRun]) -> Comparison:
    """Compare the runs of an arm with uniform's of the same seeds."""
    pairs = list(zip(uniform, runs, strict=True))
    if [one.seed for one, _ in pairs] != [other.seed for _, other in pairs]:
        raise ValueError("runs of different seeds cannot be compared")

    def at_end(figure: Callable[[Point], float]) -> Interval:
        return interval([figure(run.last) for run in runs])

    def at_equal_loss(figure: Callable[[Point], float]) -> Interval:
        reductions: list[float] = []
        for one, other in pairs:
            ours, theirs = (base, *one.points), (base, *other.points)
            level = max(min(map(_loss, ours)), min(map(_loss, theirs)))
            reductions.append(read_at(ours, _loss, level, figure) - read_at(theirs, _loss, level, figure))
        return interval(reductions)

    return Comparison(
        arm=runs[0].arm,
        rate=runs[0].rate,
        attack_success=at_end(_by_rules),
        attack_success_phrases=at_end(_by_phrases),
        newly_complying=at_end(partial(_newly_complying, base)),
        incoherent=at_end(lambda point: point.incoherent),
        over_refusal=at_end(lambda point: point.over_refusal),
        loss=at_end(_loss),
        rouge=at_end(lambda point: point.rouge or 0.0),
        worst_attack_success=interval([max(map(_by_rules, run.points)) for run in runs]),
        reduction_at_equal_loss=at_equal_loss(_by_rules),
        reduction_at_equal_loss_phrases=at_equal_loss(_by_phrases),
        seconds=interval([other.seconds / one.seconds for one, other in pairs]),
    )


def write_table(base: Point, compared: Sequence[Comparison]) -> str:
    """The comparisons as text, mean and 95 % interval over seeds."""
    head = ["arm", "rate", "ASR", "ASR, phrases", "incoherent", "over-refusal", "loss", "ROUGE-L", "worst ASR"]
    rows = [[*head, "ASR below uniform at equal loss", "by phrases", "time"]]
    figures = [base.attack_success(), base.attack_success("phrases"), base.incoherent, base.over_refusal]
    rows.append(["base", "-", *(f"{value:.1f}" for value in figures), f"{base.loss:.3f}", f"{base.rouge or 0:.3f}"])
    rows[-1] += ["-"] * (len(rows[0]) - len(rows[-1]))
    for each in compared:
        shares = [each.attack_success, each.attack_success_phrases, each.incoherent, each.over_refusal]
        scores = [cell(each.loss, 3), cell(each.rouge, 3), cell(each.worst_attack_success)]
        reductions = [cell(each.reduction_at_equal_loss), cell(each.reduction_at_equal_loss_phrases)]
        rows.append([each.arm, f"{each.rate:g}", *map(cell, shares), *scores, *reductions, cell(each.seconds, 2)])
    return "\n".join(aligned(rows))


def _loss(point: Point) -> float:
    return point.loss


def _newly_complying(base: Point, point: Point) -> float:
    """Share of what the base model refuses by both judges that is complied with now, in per cent."""
    before = zip(*(base.harmful[judge] for judge in JUDGES), strict=True)
    now = [mark for mark, marks in zip(point.harmful["rules"], before, strict=True) if set(marks) == {"r"}]
    return 100 * now.count("c") / len(now) if now else 0.0


def _by_rules(point: Point) -> float:
    return point.attack_success()


def _by_phrases(point: Point) -> float:
    return point.attack_success("phrases")
