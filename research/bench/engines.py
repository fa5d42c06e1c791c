"""How fast real answers are generated: the project's own loop, transformers' continuous batching, and vLLM.

The prompts are a suite's, greedily answered by a model of the server's list, so answers end where the model ends them.
All ways take turns, round after round; ratios are taken within a round, of wall time and of processor time, vLLM's
process included. Starting vLLM is not counted and reported apart. Answers are compared with those of the own loop: the
largest difference of two logits where two answers part is reported, and the program ends with an error if it exceeds
what rounding explains.
Not here: transformers' `generate` in batches (research.bench.generation), sampling, what the answers mean.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, Protocol, cast

import psutil
import torch
import typer
from peft import PeftModel
from transformers import ContinuousBatchingConfig, GenerationConfig

from core import catalog
from core.lm.adapter import attached, save
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel, load
from core.lm.modules import find_modules
from core.lm.vllm_engine import ServedFiles, VllmModel, open_vllm, vllm_version
from core.schemas.security import SuiteName
from core.schemas.training import LoraSpec
from research.bench.figures import Figures, benchmark, ignore, ratios, spread, take_turns
from research.bench.generation import Answers, differing, suite_prompts

_TIES = {"float32": 1e-2, "bfloat16": 1.0}
"""Logits so near to each other may change places by rounding."""
_CACHE_BYTES = 1 << 30
"""Keys and values of continuous batching, as of the own loop on a CPU. By default it takes 90 % of the memory."""
_READ_TOKENS = 1024
"""Tokens of a pass of continuous batching, as of the own loop on a CPU."""
_PAGE = 64


class _Result(Protocol):
    generated_tokens: list[int]
    error: str | None


class _Batches(Protocol):
    """A method of models that transformers' types do not declare."""

    def generate_batch(
        self,
        inputs: Sequence[Sequence[int]],
        generation_config: GenerationConfig,
        continuous_batching_config: ContinuousBatchingConfig,
    ) -> dict[str, _Result]: ...


def main(
    *,
    models: Annotated[Path, typer.Option(help="The server's list, models.toml.")],
    model: Annotated[str, typer.Option(help="A base model of the list.")],
    converted: Annotated[Path, typer.Option(help="Folder of converted GGUF models.")],
    vllm_python: Annotated[
        Path | None, typer.Option(help="Python that has vLLM; without it, vLLM is left out.")
    ] = None,
    rank: Annotated[int, typer.Option(min=0, help="Rank of a random adapter; 0 for the base model alone.")] = 0,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Precision of the weights.")] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 3,
    suite: Annotated[SuiteName, typer.Option(help="Whose prompts; of several samples one is taken.")] = "standard",
    prompts: Annotated[int, typer.Option(min=2, help="About so many prompts, over all families.")] = 60,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each way.")] = 1,
) -> None:
    """Seconds for all prompts, each way, and how many times as long the others take as the own loop."""
    with benchmark("engines") as figures:
        torch.set_num_threads(threads)
        base = load(catalog.read(models, converted).models[model], torch.device("cpu"))
        base.model.to(getattr(torch, dtype))
        rendered = suite_prompts(base, suite, prompts, None)
        figures |= {"model": model, "dtype": dtype, "rank": rank, "threads": threads, "suite": suite}
        figures |= {"prompts": len(rendered), "prompt_tokens": sum(map(len, rendered))}
        with _adapted(base, rank) as files, _served(base, files, vllm_python, figures) as served:
            ways: dict[str, Callable[[], Answers]] = {
                "own": partial(continue_tokens, base, base.model, rendered, max_new_tokens=tokens, on_progress=ignore),
                "continuous": partial(_continuous, base, rendered, tokens),
            }
            if served is not None:
                ways["vllm"] = partial(
                    continue_tokens, base, served, rendered, max_new_tokens=tokens, on_progress=ignore
                )
            runs = take_turns({name: partial(_timed, way) for name, way in ways.items()}, rounds)
            figures.update(_figures(runs, set(base.stop_ids)))
            wanted = runs["own"][0][0]
            figures["other_answers"] = {
                name: differing(base, rendered, wanted, runs[name][0][0], tie=_TIES[dtype])
                for name in ways
                if name != "own"
            }


def _figures(runs: dict[str, list[tuple[Answers, float, float]]], stop_ids: set[int]) -> Figures:
    answers = runs["own"][0][0]
    count = sum(map(len, answers))
    found: Figures = {
        "answer_tokens": count,
        "answers_ended_by_the_model": sum(bool(stop_ids.intersection(row[-1:])) for row in answers),
    }
    wall = {name: [seconds for _, seconds, _ in each] for name, each in runs.items()}
    cpu = {name: [seconds for _, _, seconds in each] for name, each in runs.items()}
    for name in runs:
        found[name] = {
            "tokens_per_second": spread([count / seconds for seconds in wall[name]], 1),
            "tokens_per_cpu_second": spread([count / seconds for seconds in cpu[name]], 1),
        }
        if name != "own":
            found[f"{name}_to_own"] = {
                "wall": ratios(wall[name], wall["own"]),
                "cpu": ratios(cpu[name], cpu["own"]),
            }
    return found


def _timed(work: Callable[[], Answers]) -> tuple[Answers, float, float]:
    """The answers, wall seconds, and processor seconds of this process and its children."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    found = work()
    return found, time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(each.user + each.system for each in times)


@contextmanager
def _adapted(base: BaseModel, rank: int) -> Iterator[ServedFiles]:
    """The base model, with a random adapter unless its rank is 0; yields the files of the same model."""
    if not rank:
        yield ServedFiles(base.folder)
        return
    with (
        TemporaryDirectory() as folder,
        attached(base.model, find_modules(base.model), LoraSpec(rank=rank, alpha=rank), seed=0) as tuned,
    ):
        _move(tuned)
        tuned.to(base.model.dtype).eval()
        save(tuned, base, Path(folder))
        yield ServedFiles(base.folder, Path(folder), rank)


@torch.no_grad()
def _move(tuned: PeftModel) -> None:
    """Stands in for training: an update that changes answers and is small enough that they stay text."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in tuned.named_parameters():
        if ".lora_B" in name:
            parameter.normal_(std=0.01, generator=generator)


@contextmanager
def _served(base: BaseModel, files: ServedFiles, python: Path | None, figures: Figures) -> Iterator[VllmModel | None]:
    start = time.perf_counter()
    with open_vllm(python, base, files, base.model) if python else nullcontext() as served:
        if served is not None:
            seconds = round(time.perf_counter() - start, 1)
            figures |= {"vllm_version": vllm_version(python), "vllm_start_seconds": seconds}
        yield served


@torch.no_grad()
def _continuous(base: BaseModel, prompts: Sequence[Sequence[int]], most: int) -> Answers:
    config = base.model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    slot = 2 * config.num_hidden_layers * config.num_key_value_heads * width * base.model.dtype.itemsize
    results = cast(_Batches, base.model).generate_batch(
        prompts,
        GenerationConfig(max_new_tokens=most, do_sample=False, pad_token_id=base.pad_id, eos_token_id=base.stop_ids),
        ContinuousBatchingConfig(
            page_size=_PAGE, num_blocks=_CACHE_BYTES // (slot * _PAGE), max_batch_tokens=_READ_TOKENS
        ),
    )
    if len(results) < len(prompts) or any(each.error for each in results.values()):
        raise RuntimeError("continuous batching did not answer all prompts: its log says why")
    return [each.generated_tokens for each in results.values()]


if __name__ == "__main__":
    typer.run(main)
