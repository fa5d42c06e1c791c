"""A real model and an experiment's data in memory: trains arms as a job does, and measures them on the way.

Runs use what a job uses: the plan of a strategy, safeguards, the training loop. Not here: which runs there are
(research.real.run), figures (research.real.measure).
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers.utils.logging import disable_progress_bar

from core import safeguards
from core.attacks.prompts import choose_prompts
from core.data import load as load_rows
from core.data.encoded import Encoded
from core.data.template import encode_all, end_of_turn
from core.lm.adapter import attached
from core.lm.load import choose_device, load
from core.lm.modules import find_modules
from core.pipeline.context import watched_prompts
from core.robustness.refusals import BaseRefusals, render_probes
from core.safeguards import SafeguardContext, TrainedContext
from core.safeguards.base_answers import BaseAnswers
from core.schemas.analysis import AnalysisSpec
from core.schemas.job import JobSpec
from core.schemas.models import BaseModelEntry
from core.schemas.prompts import PromptSet
from core.schemas.results import TrainedStep
from core.schemas.robustness import RobustnessResult
from core.schemas.safeguards import ScaleUpdate
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Strategy, analysis_of
from core.schemas.training import TrainingSpec
from core.training.kept import LAST_WEIGHTS
from core.training.loop import train
from core.training.strategies import plan
from research import ignore
from research.maps import compute_map
from research.real.align import ALIGNED_ON
from research.real.arms import Arm
from research.real.measure import Point, mark_answers, measure_loss, measure_rouge
from research.real.plan import Plan, shuffle

_DATASET = "ds_" + "0" * 24


class Lab:
    """The base model, rows and requests of one experiment."""

    def __init__(
        self, settings: Plan, entry: BaseModelEntry, data: Path, harmful: Sequence[str], safe: Sequence[str]
    ) -> None:
        """Load the model and the rows. `harmful` and `safe` are requests in the order of their files."""
        disable_progress_bar()  # lines of progress are the experiment's own
        # peft asks transformers 5 by an old name, once in every process.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        self.settings, self.entry = settings, entry
        self.base = load(entry, choose_device("auto"))
        self.base.stop_also_at(end_of_turn(self.base.tokenizer))
        self._answers = BaseAnswers(self.base)
        self.modules = find_modules(self.base.model)
        rows = shuffle(load_rows(data, None, max_rows=1_000_000), "rows")
        held_out = settings.rows + settings.validation_rows
        if len(rows) < held_out:
            raise ValueError(f"{data} has {len(rows)} rows, and the plan needs {held_out}")
        self._rows = rows[: settings.rows]
        self._held_out = rows[settings.rows : held_out]
        known = _aligned_on(self.base.folder)
        self._candidates = shuffle([text for text in harmful if text not in known], "harmful")[settings.first_request :]
        self._safe = shuffle([text for text in safe if text not in known], "safe")[: settings.safe]

    @cached_property
    def harmful(self) -> tuple[str, ...]:
        """Requests in a fixed random order; by the plan, only those that the base model refuses by both judges."""
        found: list[str] = []
        size = self.settings.harmful
        if not self.settings.only_refused:
            return tuple(self._candidates[:size])
        for first in range(0, len(self._candidates), size):
            part = self._candidates[first : first + size]
            marks = mark_answers(self.base, self.base.model, part, tokens=self.settings.answer_tokens).values()
            found += [text for text, own in zip(part, zip(*marks, strict=True), strict=True) if set(own) == {"r"}]
            if len(found) >= size:
                break
        return tuple(found[:size])

    def measure(self, model: nn.Module, step: int, *, attacks: bool, answers: bool) -> Point:
        """Figures of the model: always the loss; with `attacks` refusals, with `answers` ROUGE-L."""
        tokens = self.settings.answer_tokens
        return Point(
            step=step,
            loss=measure_loss(self.base, model, self._validation),
            harmful=mark_answers(self.base, model, self.harmful, tokens=tokens) if attacks else {},
            safe=mark_answers(self.base, model, self._safe, tokens=tokens)["rules"] if attacks else "",
            rouge=measure_rouge(self.base, model, self._held_out[: self.settings.answered_rows]) if answers else None,
        )

    def train(
        self,
        arm: Arm,
        *,
        rate: float,
        seed: int,
        compute_map: Callable[[], RobustnessResult],
        attacks: bool,
        say: Callable[[Point], None],
    ) -> tuple[tuple[Point, ...], float]:
        """Train an arm. Returns its points and the seconds without measuring. `attacks` is as for `measure`."""
        spec, run = self._training(seed), arm.strategy
        job = JobSpec(base_model=self.entry.name, dataset=_DATASET, training=spec, strategy=run)
        context = SafeguardContext(
            spec=job,
            entry=self.entry,
            base=self.base,
            modules=self.modules,
            prompts=self._prompts,
            answers=self._answers,
            rows=self._rows,
        )
        safeguards.check(run, context)
        # Arms share maps, so none is charged for one.
        rates = plan(run, self.modules, compute_map() if analysis_of(run) else None)
        clock = _Clock()
        texts, _ = safeguards.rewrite_rows(run, context, self._rows, ignore)
        context = replace(context, rows=safeguards.training_rows(run, texts))
        rows = encode_all(context.rows, self.base.tokenizer, max_length=self.settings.max_length).rows
        extra = safeguards.extra_rows(run, context, rows, ignore)
        objective, _ = safeguards.objective(run, context, ignore)
        refusal_nll = self._refusals.nll if any(each.needs_refusals for each in run.safeguards) else None
        points: list[Point] = []

        def measure(tuned: PeftModel, step: int) -> None:
            with clock.stopped():
                last = step == self.settings.steps
                points.append(self.measure(tuned.eval(), step, attacks=attacks, answers=attacks and last))
                tuned.train()
                say(points[-1])

        with attached(self.base.model, self.modules, spec.lora, seed=seed) as tuned:

            def on_step(step: TrainedStep, _total: int) -> None:
                if step.step in self._measured_steps(run):
                    measure(tuned, step.step)

            trained = train(
                tuned,
                [*rows, *(row for each in extra for row in each.rows)],
                rates,
                spec,
                learning_rate=rate,
                pad_id=self.base.pad_id,
                on_step=on_step,
                objective=objective,
                refusal_nll=refusal_nll,
                end_weights=safeguards.end_weights(run),
            )
            ended = TrainedContext(**vars(context), trained=trained, originals={}, refusal_nll=refusal_nll)
            safeguards.after_training(run, ended, tuned)
            measure(tuned, self.settings.steps)
        return tuple(points), clock.seconds

    def _measured_steps(self, run: Strategy) -> frozenset[int]:
        """The steps before the last at which a run is measured.

        A run that ends with other weights than its last is measured at its end only: on the way, it has weights that it
        would not end with.
        """
        if safeguards.end_weights(run) != LAST_WEIGHTS or run.safeguards.get(ScaleUpdate):
            return frozenset()
        steps, points = self.settings.steps, self.settings.points
        return frozenset(round(steps * number / points) for number in range(1, points))

    def compute_map(self, analysis: AnalysisSpec, *, rate: float, seed: int) -> RobustnessResult:
        """The robustness map, with a probe of this seed and rate."""
        return compute_map(
            self.base,
            self.modules,
            encode_all(self._rows, self.base.tokenizer, max_length=self.settings.max_length).rows,
            analysis,
            prompts=self._prompts.probe,
            training=self._training(seed),
            rate=rate,
        )

    @cached_property
    def _validation(self) -> tuple[Encoded, ...]:
        return encode_all(self._held_out, self.base.tokenizer, max_length=self.settings.max_length).rows

    @cached_property
    def _prompts(self) -> PromptSet:
        """The prompts of safeguards and analysis: of the model or built in, none of which is reported here."""
        return choose_prompts(SecuritySpec(), self.base.folder)

    def _training(self, seed: int) -> TrainingSpec:
        settings = self.settings
        return TrainingSpec(
            steps=settings.steps, batch_size=settings.batch_size, max_length=settings.max_length, seed=seed
        )

    @cached_property
    def _refusals(self) -> BaseRefusals:
        """The base model's refusals that safeguards watch, as in a job."""
        (prompts,) = render_probes(self.base, watched_prompts(self._prompts))
        return BaseRefusals(self.base, prompts, on_progress=ignore)


class _Clock:
    """Seconds since it was made, without the time in which it was stopped."""

    def __init__(self) -> None:
        self._began, self._stopped = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began - self._stopped

    @contextmanager
    def stopped(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._stopped += time.monotonic() - began


def _aligned_on(folder: Path) -> frozenset[str]:
    """The prompts that the model was aligned with by `research.real.align`."""
    path = folder / ALIGNED_ON
    return frozenset(json.loads(path.read_bytes())) if path.is_file() else frozenset()
