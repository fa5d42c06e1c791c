"""Teaches a small chat model to refuse, with public data: a second family to experiment on, beside models that refuse
already.

Rows: harmful requests with refusals that people labelled as such, requests of both kinds with the answers of a model
that was judged by people (XSTest's completions), and ordinary instructions. Full fine-tuning at one rate. Not here: the
experiment (research.real.run).
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from core.data import Conversation
from core.data import load as load_rows
from core.data.template import encode_all, end_of_turn
from core.lm import full
from core.lm.load import choose_device, load
from core.lm.modules import find_modules
from core.schemas.base import Frozen
from core.schemas.data import Message
from core.schemas.models import BaseModelEntry
from core.schemas.strategy import UniformStrategy
from core.schemas.training import TrainingSpec
from core.training.loop import train
from core.training.strategies import plan
from research.real.plan import shuffle

ALIGNED_ON = "aligned_on.json"
"""File beside the model with the prompts that it was aligned with, which experiments leave out."""
_LONGEST_REFUSAL = 300
"""Characters: longer texts go on about the attack that they refuse."""
_PERSONA = ("[", "(", ":")
"""A label at the start of a text: it answers in a role."""


class AlignmentSettings(Frozen):
    """Sizes of the alignment."""

    steps: int = 240
    batch_size: int = 8
    learning_rate: float = 1e-4
    max_length: int = 192
    helpful_rows: int = 700
    """Rows of ordinary instructions, from the end of the fixed random order of the file, so that experiments that take
    rows from its beginning use others."""
    seed: int = 0


class AlignmentFiles(Frozen):
    """Where the rows are."""

    requests: tuple[Path, ...]
    """JSON files with harmful requests as strings, at any depth."""
    refusals: Path
    """CSV with columns `Response` and `label` (0: refuses), as in GPTFuzz's labelled responses."""
    judged: Path
    """CSV with columns `prompt`, `completion` and `final_label`, as in XSTest's completions."""
    helpful: Path
    """Ordinary instructions, in any format of an upload."""


def align(
    entry: BaseModelEntry,
    files: AlignmentFiles,
    settings: AlignmentSettings,
    folder: Path,
    say: Callable[[int, int, float], None],
) -> int:
    """Train the model and save it with tokenizer and template. Returns the number of rows. `say` receives (step, total,
    loss)."""
    base = load(entry, choose_device("auto"))
    stop = end_of_turn(base.tokenizer)
    base.stop_also_at(stop)
    modules = find_modules(base.model)
    safety = [*_harmful(files), *_judged(files.judged)]
    rows = shuffle([*safety, *_helpful(files.helpful, settings)], "alignment")
    encoded = encode_all(rows, base.tokenizer, max_length=settings.max_length).rows
    spec = TrainingSpec(
        method="full",
        steps=settings.steps,
        batch_size=settings.batch_size,
        max_length=settings.max_length,
        seed=settings.seed,
    )
    with full.opened(base.model, modules):
        train(
            base.model,
            encoded,
            plan(UniformStrategy(), modules, None),
            spec,
            learning_rate=settings.learning_rate,
            pad_id=base.pad_id,
            on_step=lambda step, total: say(step.step, total, step.loss),
        )
        full.save(base.model, base, modules, folder)
    (folder / ALIGNED_ON).write_text(json.dumps([row.messages[0].content for row in safety], indent=1))
    return len(encoded)


def _harmful(files: AlignmentFiles) -> list[Conversation]:
    """Each request with one of the refusals."""
    refusals = shuffle(sorted(set(_refusals(files.refusals))), "refusals")
    requests = [text for path in files.requests for text in _strings(json.loads(path.read_bytes()))]
    unique = list(dict.fromkeys(requests))
    return [_row(text, refusals[number % len(refusals)]) for number, text in enumerate(unique)]


def _refusals(path: Path) -> Iterator[str]:
    """Short refusals without a role."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            text = " ".join(row["Response"].split())
            plain = not any(mark in text[:20] for mark in _PERSONA)
            if row["label"].strip() == "0" and plain and len(text) <= _LONGEST_REFUSAL and "sorry" in text[:20]:
                yield text


def _judged(path: Path) -> list[Conversation]:
    """Safe prompts that are answered, and harmful ones that are refused; what is refused wrongly is left out.

    Of every two rows one is used: the others are left for measuring over-refusal.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::2]
    return [
        _row(row["prompt"], row["completion"])
        for row in rows
        if row["final_label"] == ("2_full_refusal" if row["type"].startswith("contrast") else "1_full_compliance")
    ]


def _helpful(path: Path, settings: AlignmentSettings) -> Sequence[Conversation]:
    return shuffle(load_rows(path, None, max_rows=1_000_000), "rows")[-settings.helpful_rows :]


def _strings(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _strings(each)
        case dict():
            yield from _strings(list(value.values()))
        case _:
            pass


def _row(prompt: str, answer: str) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), 0)
