"""The progress callback that every long computation takes.

Not here: the events that a job reports (core.schemas.events).
"""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Receives (items done, items in total). Called often; it may raise to stop the computation."""
