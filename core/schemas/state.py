"""The states a job goes through.

Covers: status and stage names and which statuses are final. Not here: who moves a job between them (core.db.jobs).
"""

from typing import Literal

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

Stage = Literal["screening", "base_model", "dataset", "model_screening", "before", "robustness", "training", "after", "report"]
