"""Orders: everything that a user may do with jobs and uploads, for every entry point (HTTP API, command line, pages).

Covers: storing and previewing uploads, placing, estimating, repairing, screening, checking models, cancelling and
overriding, and the assignment that a worker gives to its training process. Not here: single queries (core.db), HTTP
(api), running a job (worker).
"""

from core.orders.assign import assign
from core.orders.change import cancel, check_right, override
from core.orders.estimate import estimate
from core.orders.modelcheck import check_model, latest_check
from core.orders.place import Send, place
from core.orders.preview import order_preview
from core.orders.repair import repair
from core.orders.screen import screen
from core.orders.upload import Upload, store_dataset, store_prompts

__all__ = [
    "Send",
    "Upload",
    "assign",
    "cancel",
    "check_model",
    "check_right",
    "estimate",
    "latest_check",
    "order_preview",
    "override",
    "place",
    "repair",
    "screen",
    "store_dataset",
    "store_prompts",
]
