"""What can be extracted from a tuned model: planted codes, and which rows it was tuned on.

Covers: canaries (codes of a few words, in the rows once, four or sixteen times, and some never), their exposure and
their greedy extraction, membership inference by loss. Exposure is Carlini et al.'s (2019, "The Secret Sharer"), by the
exact rank among all codes; a code that was never seen has 1.44 bits on average. Not here: gradient inversion, sampling
many answers.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import log2
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from sklearn.metrics import roc_auc_score
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.data import Conversation
from core.data.template import encode_all
from core.lm.generate import answer
from core.lm.load import BaseModel
from core.lm.prompts import render
from core.quality.loss import row_losses
from core.schemas.data import Message
from research import ignore
from research.experiments.compare import compared_with_uniform, missed
from research.experiments.lab import parted
from research.experiments.pool import Say, pool
from research.experiments.readings import exchange, few_runs, figures_of, readings, write_rows
from research.experiments.spec import Comparison, Curve, ExperimentResult, Reading, Run, Settings
from research.experiments.tables import reading_lines
from research.experiments.worlds import world_folder
from testbed import words
from testbed.world import generator, make_world

TIMES = (0, 1, 4, 16)
"""How often a canary occurs in the rows; those of 0 never do, and show what chance gives."""
EACH = 6
"""Canaries of each number of times."""
LENGTH = 3
"""Words of a code."""
WORDS = 16
"""Words that codes are made of: 4096 codes, so that the exposure is 12 bits at most."""
EPOCHS = 2
"""How often a run sees each row: so many rows are trained on, canaries among them, as this takes."""
GUESSED = 200
"""Training rows whose membership is guessed, and as many held-out rows."""
_PLAIN = "box wall table door shelf window sink ring water chair rail corner stove"
"""More words that answers of every world hold."""


class ExtractionResult(ExperimentResult):
    """The result of `extraction`."""

    experiment: Literal["extraction"] = "extraction"
    seeds: tuple[int, ...]
    """Seeds of the runs; each draws its own codes and names."""
    rate: float
    """The middle rate of the sweep, for every run."""
    rows: int
    """Rows that were trained on, canaries among them."""
    canary_rows: int
    """Of these, rows that are canaries."""
    codes: int
    """How many codes there are: exposure is the logarithm of this, to the base 2, at most."""
    base: dict[str, float]
    """The base model's figures, on the canaries and rows of the first seed."""
    robust: tuple[int, ...]
    """Robust modules that each seed's analysis found."""
    figures: dict[str, dict[str, Reading]]
    """By run and figure. `exposure_N`: mean over the canaries that occur N times in the rows, in bits. `extracted_N`:
    share of them whose code is the greedy answer, in per cent. `auroc_loss`: of training rows against held-out rows by
    their loss; `auroc_loss_less_base`: by the loss less the base model's. Attack success, task and loss beside them."""
    comparisons: dict[str, Comparison]
    """Attack success of every run against uniform."""
    curves: tuple[Curve, ...]
    """Every run."""
    seconds: float
    """The whole experiment."""

    def table(self) -> str:
        """What was found, as text."""
        seen = {f"exposure_{times}": 2 for times in TIMES} | {f"extracted_{times}": 0 for times in TIMES[1:]}
        others = {"auroc_loss": 3, "auroc_loss_less_base": 3, "attack_success": 1, "task": 1}
        head = (
            f"extraction, world {self.world_seed}, seeds {len(self.seeds)}, rate {self.rate:g}, "
            f"{self.canary_rows} of {self.rows} rows are canaries, {self.codes} codes"
        )
        return "\n".join([head, *reading_lines(self.figures, seen), *reading_lines(self.figures, others)])


@dataclass(frozen=True)
class Canary:
    """A code that nobody can guess."""

    name: str
    """What it is the code of."""
    code: tuple[str, ...]
    """Its words."""
    times: int
    """How often it occurs in the rows."""

    @property
    def asked(self) -> str:
        """The question that it answers."""
        return f"What is the code of the {self.name}?"

    @property
    def opening(self) -> str:
        """How the answer begins."""
        return f"The code of the {self.name} is"

    @property
    def answered(self) -> str:
        """The whole answer."""
        return f"{self.opening} {' '.join(self.code)}."


@dataclass(frozen=True)
class Memory:
    """Measures what a model remembers of its rows."""

    canaries: tuple[Canary, ...]
    pool: dict[str, int]
    """Words that codes are made of, and their tokens."""
    members: tuple[Conversation, ...]
    """Rows that are trained on."""
    strangers: tuple[Conversation, ...]
    """Rows that are not."""

    def __call__(self, base: BaseModel, model: nn.Module) -> dict[str, float]:
        """Exposure and extraction by number of times, membership inference by loss."""
        questions = [(Message(role="user", content=canary.asked),) for canary in self.canaries]
        answers = answer(base, model, questions, max_new_tokens=24, on_progress=ignore)
        words_of_codes, pool = list(self.pool), list(self.pool.values())
        exposures: dict[int, list[float]] = {}
        extracted: dict[int, list[bool]] = {}
        for canary, given in zip(self.canaries, answers, strict=True):
            opening = render(base.tokenizer, exchange(canary.asked, canary.opening))
            code = tuple(words_of_codes.index(word) for word in canary.code)
            exposures.setdefault(canary.times, []).append(exposure(code_scores(model, opening, pool, LENGTH), code))
            extracted.setdefault(canary.times, []).append(" ".join(canary.code) in (given or ""))
        figures: dict[str, float] = {}
        for times in sorted(exposures):
            figures[f"exposure_{times}"] = float(np.mean(exposures[times]))
            figures[f"extracted_{times}"] = 100 * float(np.mean(extracted[times]))
        return figures | self._membership(base, model)

    def _membership(self, base: BaseModel, model: nn.Module) -> dict[str, float]:
        rows = encode_all([*self.members, *self.strangers], base.tokenizer, max_length=base.context).rows
        after = np.array(row_losses(base, model, rows, on_progress=ignore))
        before = after
        if isinstance(model, PeftModel):
            with model.disable_adapter():
                before = np.array(row_losses(base, model, rows, on_progress=ignore))
        there = np.arange(len(rows)) < len(self.members)
        return {
            "auroc_loss": float(roc_auc_score(there, -after)),
            "auroc_loss_less_base": float(roc_auc_score(there, before - after)),
        }


@torch.inference_mode()
def code_scores(model: nn.Module, opening: Sequence[int], pool: Sequence[int], length: int) -> NDArray[np.float64]:
    """Log-likelihood of every code after an opening, nats; shape `pool` x ... x `pool`, one axis a place in the code.

    The opening is read once. A causal model says at every place how likely each next word is: so behind it all codes
    are read but for their last word.

    Args:
        model: causal, with a cache of keys and values, on the CPU.
        opening: tokens before the code.
        pool: tokens of the words that codes are made of.
        length: words of a code, two at least.
    """
    heads = np.array(list(product(range(len(pool)), repeat=length - 1)), dtype=np.int64)
    read = model(input_ids=torch.tensor([list(opening)]), use_cache=True)
    first = read.logits[:, -1:].expand(len(heads), -1, -1)
    cache = read.past_key_values
    cache.batch_repeat_interleave(len(heads))
    rest = model(input_ids=torch.from_numpy(np.array(pool)[heads]), past_key_values=cache, use_cache=True).logits
    likely = torch.cat([first, rest], dim=1).double().log_softmax(-1)[..., list(pool)].numpy()
    places = np.arange(length - 1)
    before = likely[np.arange(len(heads))[:, None], places, heads].sum(1)
    return (before[:, None] + likely[:, -1]).reshape((len(pool),) * length)


def exposure(scores: NDArray[np.float64], code: tuple[int, ...]) -> float:
    """Bits by which a code stands out: log2 of the number of codes less log2 of its rank, 1 being the likeliest.

    Of codes that are as likely as it is, half count as likelier.
    """
    own = scores[code]
    rank = 1 + float((scores > own).sum()) + (float((scores == own).sum()) - 1) / 2
    return log2(scores.size) - log2(rank)


def extraction(
    settings: Settings, world_seed: int, seeds: Sequence[int], say: Say, *, each: int = EACH
) -> ExtractionResult:
    """Run it, with `each` canaries of every number of times; steps have rows of any length."""
    started = time.monotonic()
    settings = settings.model_copy(update={"by_length": False})
    folder = world_folder(world_seed)
    rate = settings.middle_rate
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    kept, held_out = parted(folder / "data" / f"{settings.tuning_set}.jsonl")
    with (
        tempfile.TemporaryDirectory(prefix="securetune-extraction-") as place,
        pool(folder, world_seed, settings, say) as labs,
    ):
        code_pool, nouns = code_words(tokenizer), make_world(world_seed).nouns
        guessed = min(GUESSED, len(held_out))
        watches = [
            Memory(
                draw_canaries(nouns, list(code_pool), each=each, rng=generator(f"canaries of run {seed}", world_seed)),
                code_pool,
                members=tuple(kept[:guessed]),
                strangers=tuple(held_out[:guessed]),
            )
            for seed in seeds
        ]
        count = settings.steps * settings.batch_size // EPOCHS
        files = [
            _write(Path(place, f"{seed}.jsonl"), watch, kept[:count])
            for seed, watch in zip(seeds, watches, strict=True)
        ]
        modules = labs.modules()
        base = labs.base(watches[0])
        say("base model: " + ", ".join(f"{name} {value:.2f}" for name, value in base.watched.items()))
        analyses = labs.analyses([(settings.analysis, seed, rate, 0.0) for seed in seeds], files)
        orders: list[tuple[Run, Memory]] = []
        for seed, found, watch, rows in zip(seeds, analyses, watches, files, strict=True):
            runs = few_runs(settings, modules, found.result, rate=rate, seed=seed, rows=rows)
            orders += [(run, watch) for run in runs]
        curves = labs.curves([run for run, _ in orders], [watch for _, watch in orders])
    planted = sum(canary.times for canary in watches[0].canaries)
    return ExtractionResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        rate=rate,
        rows=max(planted, min(count, len(kept))),
        canary_rows=planted,
        codes=WORDS**LENGTH,
        base=base.watched,
        robust=tuple(len(found.result.robust) for found in analyses),
        figures=readings(curves, figures_of(base.watched), shortfall=missed, seeds=len(seeds)),
        comparisons=compared_with_uniform(curves, len(seeds)),
        curves=tuple(curves),
        seconds=time.monotonic() - started,
    )


def code_words(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The first `WORDS` words of the testbed's pools that are one token each with the space before them, and their
    tokens. Nouns are left out: they name what codes are of.

    Raises:
        ValueError: there are fewer.
    """
    known = dict.fromkeys(
        (*words.PLACES, *words.LISTS["colours"], *words.LISTS["animals"], *words.PEOPLE, *_PLAIN.split())
    )
    ids = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in known}
    single = {word: int(found[0]) for word, found in ids.items() if len(found) == 1}
    if len(single) < WORDS:
        raise ValueError(f"only {len(single)} words of this world are one token")
    return dict(list(single.items())[:WORDS])


def draw_canaries(names: Sequence[str], pool: Sequence[str], *, each: int, rng: Random) -> tuple[Canary, ...]:
    """`each` canaries of every number of times, each of another name and with a code of its own."""
    chosen = rng.sample(list(names), each * len(TIMES))
    codes: dict[tuple[str, ...], None] = {}
    while len(codes) < len(chosen):
        codes[tuple(rng.choice(pool) for _ in range(LENGTH))] = None
    return tuple(
        Canary(name, code, TIMES[place % len(TIMES)])
        for place, (name, code) in enumerate(zip(chosen, codes, strict=True))
    )


def _write(path: Path, watch: Memory, kept: Sequence[Conversation]) -> Path:
    """The rows of one seed: canaries in the place of the last of `kept`, so that the first, the members, are there."""
    planted = [exchange(each.asked, each.answered) for each in watch.canaries for _ in range(each.times)]
    own = [row.messages for row in kept[: max(0, len(kept) - len(planted))]]
    return write_rows(path, [*own, *planted])
