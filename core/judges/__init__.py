"""Judges of answers: rules, chat models with a rubric, and trained classifiers, local or behind a server.

A judge sees a behaviour and an answer and nothing else. `open_judges` opens the judges of a job, `check_judges` checks
them before it starts. A new judge is a class of options in core.schemas.judges, a file here and its entry in `opening`;
code outside of the package calls `register`. Not here: figures from judgements (core.attacks.count).
"""

from core.judges.cache import JudgementCache
from core.judges.interface import Case, Counts, FunctionJudge, Judge, Judgements, Ruling
from core.judges.kind import JudgeKind, Models
from core.judges.opening import check_judges, open_judges, register, unregister
from core.judges.rules import rules_judge

__all__ = [
    "Case",
    "Counts",
    "FunctionJudge",
    "Judge",
    "JudgeKind",
    "JudgementCache",
    "Judgements",
    "Models",
    "Ruling",
    "check_judges",
    "open_judges",
    "register",
    "rules_judge",
    "unregister",
]
