"""What a kind of judge consists of, and the judge models that the judges of a job share.

Covers: looking up a model in the server's list, and whether it fits the judge. Not here: the kinds (rules, rubric,
strongreject, classifier), opening all judges of a job (opening).
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from core.errors import InvalidInput
from core.judges.cache import JudgementCache
from core.judges.interface import Judge
from core.judges.local import LocalModel
from core.judges.model import JudgeModel, JudgePrompt, ModelJudge
from core.schemas.judges import EndpointSource, JudgeEntry, JudgeOptions, ModelJudgeOptions

if TYPE_CHECKING:
    from core.judges.endpoint import Endpoint

Options = TypeVar("Options", bound=JudgeOptions)


@dataclass(frozen=True)
class JudgeKind(Generic[Options]):
    """A kind of judge: its options, and how it is opened."""

    options: type[Options]
    """Class of the options in requests."""
    open: Callable[[Options, "Models"], Judge]
    """Opens a judge for a job."""


class Models:
    """The judge models of one job. Judges of the same model share it; a local model is loaded on its first query."""

    def __init__(
        self, entries: Mapping[str, JudgeEntry], cache: JudgementCache | None, device: torch.device, stack: ExitStack
    ) -> None:
        """`stack` frees the models when it is closed."""
        self._entries, self._cache, self._device, self._stack = entries, cache, device, stack
        self._open: dict[str, JudgeModel] = {}

    def judge(self, options: ModelJudgeOptions, prompt: JudgePrompt) -> ModelJudge:
        """Open a judge that queries the model of `options` with `prompt`.

        Raises:
            InvalidInput: as `find_entry`.
        """
        entry = self.entry(options)
        model = self._open.get(entry.name)
        if model is None:
            source = entry.source
            model = (
                open_endpoint(entry.name, source)
                if isinstance(source, EndpointSource)
                else LocalModel(entry, source, self._device)
            )
            self._open[entry.name] = model
            self._stack.callback(model.close)
        return ModelJudge(options.label, prompt, model, self._cache)

    def entry(self, options: ModelJudgeOptions) -> JudgeEntry:
        """Look up the model of `options`; see `find_entry`."""
        return find_entry(options, self._entries)


def open_endpoint(name: str, source: EndpointSource) -> "Endpoint":
    """A judge model behind a server."""
    from core.judges.endpoint import Endpoint  # noqa: PLC0415 - OpenAI's client takes long to import, and few jobs use it

    return Endpoint(name, source)


def find_entry(options: ModelJudgeOptions, entries: Mapping[str, JudgeEntry]) -> JudgeEntry:
    """Look up the model of a judge in the server's list.

    Raises:
        InvalidInput: code `unknown_judge`, or `judge_protocol_mismatch` if the judge cannot query it.
    """
    entry = entries.get(options.model)
    if entry is None:
        listed = f"It has: {', '.join(sorted(entries))}." if entries else "It has none; the judge rules needs no model."
        raise _invalid(f"the server's list has no judge {options.model!r}. {listed}", "unknown_judge")
    if problem := options.mismatch(entry):
        raise _invalid(f"{problem}.", "judge_protocol_mismatch")
    return entry


def _invalid(message: str, code: str) -> InvalidInput:
    return InvalidInput(f"security.judges: {message}", code=code, param="security.judges")
