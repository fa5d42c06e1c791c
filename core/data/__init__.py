"""Datasets: what rows a file holds. This face reaches neither torch nor transformers; the API validates through it.

Here: `Rows`, `validate`, `load` and `Conversation`. Not here: files of prompts (import core.data.promptsets);
tokens and labels (import core.data.template), batches (import core.data.order and, which needs torch,
core.data.batches).
"""

from core.data.rows import Conversation, Rows, load, validate
from core.data.tables import MAX_REPORTED

__all__ = ["MAX_REPORTED", "Conversation", "Rows", "load", "validate"]
