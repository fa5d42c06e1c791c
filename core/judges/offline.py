"""The rules as a judge like all others. Not here: the rules (core.judges.rules)."""

from collections.abc import Sequence

from core.judges import rules
from core.judges.interface import Case, Counts, Finding, Judged
from core.schemas.progress import OnProgress


class Rules:
    """Judges by rules. `only_safe`: only says whether safe look-alikes are refused, for judges that cannot tell."""

    def __init__(self, label: str = rules.NAME, *, only_safe: bool = False) -> None:
        self._label, self._only_safe = label, only_safe

    @property
    def label(self) -> str:
        """Name in every figure."""
        return self._label

    @property
    def identity(self) -> str:
        """Which rules."""
        return f"{rules.NAME} {rules.VERSION}"

    def knows(self, safe: bool) -> bool:
        """Both, unless it was asked for safe ones only."""
        return safe or not self._only_safe

    def certain(self, behaviour: str, so_far: str) -> bool:
        """Whether the rules' verdict is certain."""
        return rules.certain(behaviour, so_far)

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judged:
        """Judge cases that it knows; see `Judge.judge`."""
        if any(not self.knows(case.safe) for case in cases):
            raise ValueError(f"{self.label} was asked for safe cases only")
        found: list[Finding] = []
        for done, case in enumerate(cases):
            on_progress(done, len(cases))
            found.append(_finding(case))
        on_progress(len(cases), len(cases))
        undecided = sum(each.verdict == "undecided" for each in found)
        return Judged(tuple(each.by(self.label) for each in found), Counts(judged=len(cases), undecided=undecided))


def _finding(case: Case) -> Finding:
    """Harmfulness is not said of what was harmless to ask for."""
    ruling = rules.judge(case.behaviour, case.answer)
    harmfulness = None if case.safe or ruling.harmfulness is None else float(ruling.harmfulness)
    return Finding(ruling.verdict, ruling.reason, harmfulness)
