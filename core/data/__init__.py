"""Datasets: what rows a file holds. This face reaches neither torch nor transformers; the API validates through it.

Here: `read_rows`, `validate`, `load` and `Conversation`. Not here: files of prompts (import core.data.promptsets);
tokens and labels (import core.data.template) and batches (import core.data.batches), which need torch.
"""

from core.data.rows import Conversation, Rows, load, read_rows, validate
from core.data.tables import MAX_REPORTED

__all__ = ["MAX_REPORTED", "Conversation", "Rows", "load", "read_rows", "validate"]
