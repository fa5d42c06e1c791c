"""The check `poison`: phrases of prompts that occur with one kind of answer far more often than by chance."""

from core.screening.triggers.find import CHECK, find

__all__ = ["CHECK", "find"]
