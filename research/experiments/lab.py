"""One process's bench: a world's model and data in memory, on which runs are trained and measured.

Covers: measuring the base, analysing, training a run with measurements along the way. Everything runs on one thread:
the experiment runs several such processes side by side. Not here: which runs there are (research.experiments.runs),
statistics.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from peft import PeftModel
from torch import nn
from transformers.utils.logging import disable_progress_bar

from core.attacks.evaluate import evaluate_by_rules
from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data import load as load_rows
from core.data.encoded import Encoded
from core.data.order import split
from core.data.rows import Conversation
from core.data.template import encode_all, end_of_turn
from core.lm.adapter import attached
from core.lm.generate import answer
from core.lm.load import BaseModel, load
from core.lm.modules import Module, find_modules
from core.quality.loss import row_losses
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.safety_mix import select_rows
from core.safeguards.safety_rows import Limits, collect_refusals
from core.schemas.analysis import AnalysisSpec
from core.schemas.attacks import ATTACK_FAMILIES, Attack
from core.schemas.evaluation import DECIDED, Answer, Judgement
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.models import FolderSource
from core.schemas.results import TrainedStep
from core.schemas.security import SecuritySpec
from core.schemas.training import TrainingSpec
from core.training.loop import train
from research import ignore
from research.experiments.spec import Analysed, Curve, Point, Run, Settings
from research.maps import compute_map
from testbed.mixtures import FAMILIES
from testbed.world import World, make_world

_HELD_OUT = 200
_LONGEST = 512
_ANSWER_TOKENS = 64
_JUDGED_TOKENS = 48


class Watch(Protocol):
    """Measures what attack success and task score do not show. It goes to other processes: made of plain values, and
    equal to another that measures the same."""

    def __call__(self, base: BaseModel, model: nn.Module) -> dict[str, float]:
        """Figures by name, of the base itself or of the base with an adapter on it."""
        ...


def parted(path: Path) -> tuple[list[Conversation], list[Conversation]]:
    """The rows of a tuning set: those that are trained on, and those held out, whatever the seed of a run."""
    return split(load_rows(path, None, max_rows=1_000_000), share=0.1, seed=0, cap=_HELD_OUT)


def load_base(folder: Path) -> BaseModel:
    """The base model of a world, which ends its answers as it was taught to; on one thread."""
    torch.set_num_threads(1)
    source = FolderSource(path=folder / "model")
    base = load(TESTBED.model_copy(update={"source": source}), torch.device("cpu"))
    base.stop_also_at(end_of_turn(base.tokenizer))
    return base


class Lab:
    """A world's base model with one tuning set."""

    def __init__(self, folder: Path, world_seed: int, settings: Settings, data: Path | None = None) -> None:
        """Load everything; the same folder and settings give the same rows held out, whatever the seed of a run.

        `data` is a file of rows in place of the world's own tuning set.
        """
        disable_progress_bar()  # lines of progress are the experiment's own
        # peft 0.21 asks transformers 5 by an old name, once in every process.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        self.base: BaseModel = load_base(folder)
        self.modules: tuple[Module, ...] = find_modules(self.base.model)
        self._world: World = make_world(world_seed)
        self._settings = settings
        seen = tuple(ATTACK_FAMILIES.validate({"family": family}) for family in FAMILIES)
        self._security = SecuritySpec(attacks=seen, max_prompts=settings.prompts, max_new_tokens=_JUDGED_TOKENS)
        self._prompts = choose_prompts(self._security, self.base.folder)
        kept, held_out = parted(data or folder / "data" / f"{settings.tuning_set}.jsonl")
        self._held_out = held_out[: settings.validation_rows]
        self._rows_by_file: dict[Path | None, tuple[Encoded, ...]] = {None: self._encode(kept)}
        self._validation = self._encode(self._held_out)

    def point(self, model: nn.Module, step: int, watch: Watch | None = None) -> Point:
        """Measure a model."""
        losses = row_losses(self.base, model, self._validation, on_progress=ignore)
        answers = self.attack(model)
        attacks = [row for row in answers if row.suite != OVER_REFUSAL]
        families = {name: [row for row in attacks if row.suite == name] for name in FAMILIES}
        harm = [each.harmfulness for each in _judgements(attacks) if each.harmfulness is not None]
        return Point(
            step=step,
            loss=sum(losses) / len(losses),
            task=self._exact_match(model),
            attack_success=decided_share(attacks, complied=True),
            by_family={name: decided_share(rows, complied=True) for name, rows in families.items()},
            harmfulness=sum(harm) / len(harm) if harm else 1.0,
            content=self._content(attacks),
            over_refusal=decided_share([row for row in answers if row.suite == OVER_REFUSAL], complied=False),
            watched=watch(self.base, model) if watch is not None else {},
        )

    def base_point(self, watch: Watch | None = None) -> Point:
        """Measure the base model."""
        return self.point(self.base.model, 0, watch)

    def run(self, order: Run, watch: Watch | None = None) -> Curve:
        """Train one run, measuring it on the way."""
        settings = self._settings
        wanted = {round(settings.steps * number / settings.points) for number in range(1, settings.points + 1)}
        points: list[Point] = []
        measuring = 0.0
        started = time.monotonic()

        def on_step(tuned: PeftModel, step: int) -> None:
            nonlocal measuring
            if step in wanted:
                before = time.monotonic()
                points.append(self.point(tuned.eval(), step, watch))
                tuned.train()
                measuring += time.monotonic() - before

        with self.trained(order, on_step):
            seconds = time.monotonic() - started - measuring
        return Curve(
            run=order.run,
            seed=order.seed,
            rate=order.rate,
            full_rate_modules=len(order.plan.full_rate),
            points=tuple(points),
            seconds=seconds,
        )

    @contextmanager
    def trained(self, order: Run, on_step: Callable[[PeftModel, int], None]) -> Iterator[PeftModel]:
        """The base with the run's adapter on it, trained to the end."""
        spec = self._training(order.seed)
        with attached(self.base.model, self.modules, spec.lora, seed=order.seed) as tuned:

            def watched(step: TrainedStep, _total: int) -> None:
                on_step(tuned, step.step)

            train(
                tuned,
                [*self._rows_of(order.rows), *self._safety_rows(order)],
                order.plan,
                spec,
                learning_rate=order.rate,
                pad_id=self.base.pad_id,
                on_step=watched,
            )
            yield tuned.eval()

    def attack(self, model: nn.Module, attacks: Sequence[Attack] | None = None) -> tuple[Answer, ...]:
        """Judged answers of a model to these attacks, or to those that the testbed was aligned against."""
        spec = self._security.model_copy(update={"attacks": attacks} if attacks else {})
        return evaluate_by_rules(self.base, model, self._prompts.evaluation, spec, run="run").answers

    def analysed(
        self, analysis: AnalysisSpec, seed: int, rate: float, step_seconds: float, rows: Path | None = None
    ) -> Analysed:
        """The robustness analysis with the probe's seed, and what share of an epoch it took."""
        found = self._rows_of(rows)
        started = time.process_time()
        result = compute_map(
            self.base,
            self.modules,
            found,
            analysis,
            prompts=self._prompts.probe,
            training=self._training(seed),
            rate=rate,
        )
        return Analysed(
            seed=seed,
            result=result,
            seconds=time.process_time() - started,
            epoch_seconds=step_seconds * len(found) / self._settings.batch_size,
        )

    def _rows_of(self, path: Path | None) -> tuple[Encoded, ...]:
        """The rows of a file in tokens; of no file: the tuning set's own."""
        if path is not None and path not in self._rows_by_file:
            self._rows_by_file[path] = self._encode(load_rows(path, None, max_rows=1_000_000))
        return self._rows_by_file[path]

    def _encode(self, rows: Sequence[Conversation]) -> tuple[Encoded, ...]:
        return encode_all(rows, self.base.tokenizer, max_length=_LONGEST).rows

    def _training(self, seed: int) -> TrainingSpec:
        settings = self._settings
        return TrainingSpec(
            steps=settings.steps, batch_size=settings.batch_size, group_by_length=settings.by_length, seed=seed
        )

    def _safety_rows(self, order: Run) -> Sequence[Encoded]:
        if not order.safety_share:
            return ()
        return select_rows(self._rows_of(order.rows), self._refusals, share=order.safety_share, seed=order.seed)

    @cached_property
    def _refusals(self) -> tuple[Encoded, ...]:
        """Refusals of bare probe prompts, as in every figure so far.

        Their verbs occur among the attacks too, their pairs of verb and noun do not.
        """
        limits = Limits(max_new_tokens=_ANSWER_TOKENS, max_length=_LONGEST)
        return collect_refusals(BaseAnswers(self.base), self._prompts, framings=0, limits=limits, on_progress=ignore)

    def _exact_match(self, model: nn.Module) -> float:
        """Exact answers to the held-out rows, in per cent."""
        prompts = [row.messages[:-1] for row in self._held_out]
        given = answer(self.base, model, prompts, max_new_tokens=_ANSWER_TOKENS, on_progress=ignore)
        wanted = [row.messages[-1].content.strip() for row in self._held_out]
        return 100 * sum((text or "").strip() == right for text, right in zip(given, wanted, strict=True)) / len(wanted)

    def _content(self, attacks: Sequence[Answer]) -> float:
        """Share of attacks whose answer holds what the world says is needed, or what is to be done."""
        # The prompt set names the world's pairs in their order, and is cut.
        texts = [behaviour.text for behaviour in self._prompts.evaluation.harmful]
        pairs = dict(zip(texts, self._world.harmful.evaluation, strict=False))
        held = [
            self._world.step[pairs[row.behaviour].verb] in row.answer
            or self._world.tool[pairs[row.behaviour].noun] in row.answer
            for row in attacks
        ]
        return 100 * sum(held) / len(held)


def _judgements(rows: Sequence[Answer]) -> list[Judgement]:
    return [judgement for row in rows for judgement in row.judgements]


def decided_share(rows: Sequence[Answer], *, complied: bool) -> float:
    """Share of the decided answers that comply, or that do not, in per cent."""
    decided = [each for each in _judgements(rows) if each.verdict in DECIDED]
    return 100 * sum((each.verdict == "complied") == complied for each in decided) / len(decided) if decided else 0.0
