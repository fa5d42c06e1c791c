"""The robustness stage: measures which modules are robust, on the job's data.

Here the analysis meets training, which it must not import: its probe runs are trained by core.training.probe. Not here:
the analysis (core.robustness).
"""

import time
from contextlib import AbstractContextManager
from functools import partial

from peft import PeftModel

from core.data.template import encode_all
from core.pipeline.cache import code_of
from core.pipeline.context import JobContext
from core.robustness.analyse import EarlyStop, analyse
from core.robustness.map_warnings import check_map
from core.schemas.analysis import AnalysisSpec, ProbeSpec
from core.schemas.results import TrainedStep
from core.schemas.robustness import RobustnessResult
from core.schemas.training import FULL_RATE_SHARE
from core.training.probe import probe


def map_robustness(job: JobContext, analysis: AnalysisSpec) -> RobustnessResult:
    """The robustness map and the robust modules. Jobs with the same data, training and analysis share it."""
    prompts = job.prompts.probe
    result = job.stages.run_cached(
        "robustness",
        RobustnessResult,
        lambda: _analyse(job, analysis),
        inputs=job.job_inputs
        | {
            "code": code_of(analyse, probe, encode_all, caller=__name__),
            "analysis": analysis.model_dump(mode="json"),
            "prompts": prompts.model_dump(mode="json"),
        },
        shared=True,
    )
    if warning := check_map(result):
        job.emit(warning)
    return result


def _analyse(job: JobContext, analysis: AnalysisSpec) -> RobustnessResult:
    measurements = 0

    def on_measurement(done: int, expected: int) -> None:
        nonlocal measurements
        measurements += 1
        job.stages.report_progress("reading", done, expected, part=(0.3, 1.0))

    meter, started = job.stages.meter, time.monotonic()
    result = analyse(
        job.base,
        job.modules,
        analysis,
        job.prompts.probe,
        job.data.training.rows[: analysis.rows],
        train_probe=partial(_train_probe, job),
        on_prepare=partial(job.stages.report_progress, "probe prompt", part=(0.0, 0.05)),
        on_progress=on_measurement,
    )
    seconds = max(0.0, time.monotonic() - started - meter.seconds)  # without the training of probes
    size = measurements * analysis.size
    meter.add("analyse", calls=measurements, amount=size, seconds=seconds, precision=job.base.weights)
    return result


def _train_probe(
    job: JobContext, wanted: ProbeSpec, seed: int, early_stop: EarlyStop
) -> AbstractContextManager[PeftModel]:
    """An adapter trained for the analysis, with an adapter's learning rate even if the job trains full weights."""
    spec = job.assignment.spec.training

    def on_step(step: TrainedStep, total: int) -> None:
        job.stages.report_progress("probe step", step.step, total, part=(0.05, 0.3))

    return probe(
        job.base,
        job.modules,
        job.data.training.rows,
        spec,
        wanted,
        seed=seed,
        learning_rate=job.learning_rate / FULL_RATE_SHARE if spec.method == "full" else job.learning_rate,
        early_stop=early_stop,
        on_step=on_step,
        meter=job.stages.meter,
    )
