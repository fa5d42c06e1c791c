"""The status of a job and the stages of the pipeline.

Covers: their names, and which statuses are final. Not here: how a job moves between them (core.db.jobs).
"""

from typing import Literal

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

Stage = Literal[
    "screening",
    "base_model",
    "dataset",
    "model_screening",
    "before",
    "noise",
    "robustness",
    "training",
    "after",
    "report",
]
