"""What the base model writes for safeguards before training: each list of prompts once, however many of them need it.

Not here: generation (core.lm.generate), which prompts these are (the safeguards).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.meter import Meter
from core.schemas.progress import OnProgress

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class BaseAnswers:
    """Writes the base model's greedy answers, and remembers them for as long as a job lasts."""

    base: BaseModel
    meter: Meter = field(default_factory=Meter)
    """Counts the answers that are generated."""
    _written: dict[object, list[list[int]]] = field(default_factory=dict)

    def write(self, prompts: Prompts, *, max_new_tokens: int, on_progress: OnProgress) -> list[list[int]]:
        """The tokens that follow each prompt. Nothing may be attached to the base model.

        A list is remembered as a whole: another batch can change an answer by rounding, and a run that resumes must
        receive the answers that it was begun with, whatever other runs have asked for.
        """
        key = (tuple(map(tuple, prompts)), max_new_tokens)
        if key not in self._written:
            asked = sum(map(bool, prompts))
            work = self.meter.measure("answer", calls=asked, amount=asked * max_new_tokens, precision=self.base.weights)
            with work:
                self._written[key] = continue_tokens(
                    self.base, self.base.model, prompts, max_new_tokens=max_new_tokens, on_progress=on_progress
                )
        return self._written[key]
