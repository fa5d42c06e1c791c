"""Who judges answers: rules, chat models with a rubric, and trained classifiers, here or behind a server.

A judge sees a behaviour and an answer and nothing else. `opened` gives the judges of a job, `check` says before it
starts what would stop them. Not here: what is counted from judgements (core.attacks.count).
"""

from core.judges.cache import JudgementCache
from core.judges.interface import Case, Counts, Judge, Judged
from core.judges.listed import check, opened
from core.judges.offline import Rules

__all__ = ["Case", "Counts", "Judge", "Judged", "JudgementCache", "Rules", "check", "opened"]
