"""How fast an evaluation's prompts are answered: the project's own loop against transformers' `generate`.

The prompts are a suite's, greedily answered, as tokens already. `generate` gets them one by one, in batches as they
come, and in batches sorted by length; of several batch sizes the best counts. All ways take turns, round after round;
each ratio is taken within a round, of processor time. Every answer must be the one that a prompt by itself gets: one
that differs is shown to part from it where two tokens are as good as equal, or the program ends with an error.
Not here: sampling, other models, what the answers mean.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, median
from typing import Annotated, Protocol, cast

import torch
import typer
from torch import Tensor
from transformers import GenerationConfig

from core.attacks.ask import build_suites
from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel, load
from core.lm.prompts import pad, render
from core.schemas.safeguards import SAFETY_PROMPT
from core.schemas.security import SecuritySpec, SuiteName
from research.bench.figures import Figures, benchmark, ignore, ratios, spread, take_turns, timed

_TARGETS = {"one_by_one": 8.0, "batched": 1.5, "sorted": None}
_TIE = 1e-3
"""Logits so near to each other may change places by rounding."""
Answers = list[list[int]]


class _Generates(Protocol):
    """A method of models that transformers' types do not declare."""

    def generate(self, **options: object) -> Tensor: ...


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 3,
    suite: Annotated[SuiteName, typer.Option(help="Whose prompts; of several samples one is taken.")] = "standard",
    prompts: Annotated[int, typer.Option(min=2, help="About so many prompts, over all families.")] = 300,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 128,
    sizes: Annotated[list[int] | None, typer.Option(min=1, help="Batches of transformers'; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
) -> None:
    """Seconds for all prompts, each way, and how many times as long the others take."""
    with benchmark("generation") as figures:
        torch.set_num_threads(threads)
        base = load(TESTBED, torch.device("cpu"))
        figures |= {"threads": threads, "suite": suite}
        for name, system in (("without_system_prompt", None), ("with_system_prompt", SAFETY_PROMPT)):
            rendered = suite_prompts(base, suite, prompts, system)
            ways = _ways(base, rendered, tokens, sizes or [32, 64, 128, len(rendered)])
            lengths: Figures = {"prompts": len(rendered), "prompt_tokens": _lengths(rendered)}
            figures[name] = lengths | _compared(base, rendered, ways, rounds)


def _ways(
    base: BaseModel, prompts: Sequence[Sequence[int]], most: int, sizes: Sequence[int]
) -> dict[str, Callable[[], Answers]]:
    batched = partial(_generate, base, prompts, most)
    ways: dict[str, Callable[[], Answers]] = {
        "engine": partial(continue_tokens, base, base.model, prompts, max_new_tokens=most, on_progress=ignore),
        "one_by_one": partial(batched, 1),
    }
    ways |= {f"batched_{size}": partial(batched, size) for size in sizes}
    ways |= {f"sorted_{size}": partial(batched, size, by_length=True) for size in sizes}
    return ways


def _lengths(rows: Sequence[Sequence[int]]) -> Figures:
    lengths = [len(row) for row in rows]
    return {"mean": round(mean(lengths), 1), "max": max(lengths)}


def _compared(
    base: BaseModel, prompts: Sequence[Sequence[int]], ways: Mapping[str, Callable[[], Answers]], rounds: int
) -> Figures:
    runs = take_turns({name: partial(timed, way) for name, way in ways.items()}, rounds)
    answers = {name: each[0][0] for name, each in runs.items()}
    cpu = {name: [seconds for _, _, seconds in each] for name, each in runs.items()}
    found: Figures = {
        name: {"cpu_seconds": spread(cpu[name]), "wall_seconds": spread([wall for _, wall, _ in each])}
        for name, each in runs.items()
    }
    compared = {
        kind: min((name for name in ways if name.startswith(kind)), key=lambda name: median(cpu[name]))
        for kind in _TARGETS
    }
    for kind, way in compared.items():
        target = {"target": _TARGETS[kind]} if _TARGETS[kind] else {}
        found[f"{kind}_to_engine"] = ratios(cpu[way], cpu["engine"]) | {"best": way} | target
    found["answer_tokens"] = _lengths(answers["one_by_one"])
    found["other_answers"] = {
        name: differing(base, prompts, answers["one_by_one"], answers[name]) for name in ("engine", compared["batched"])
    }
    return found


def differing(
    base: BaseModel, prompts: Sequence[Sequence[int]], wanted: Answers, found: Answers, *, tie: float = _TIE
) -> Figures:
    """Counts answers that differ, all of which part from the wanted ones at a tie.

    Raises:
        RuntimeError: one of them does not.
    """
    gaps = [
        _gap(base, prompt, one, other)
        for prompt, one, other in zip(prompts, wanted, found, strict=True)
        if one != other
    ]
    if any(gap > tie for gap in gaps):
        raise RuntimeError(f"An answer is another than that of its prompt alone, by {max(gaps):g} of a logit.")
    return {"of": len(wanted), "differ": len(gaps), "widest_tie": max(gaps, default=0.0)}


@torch.inference_mode()
def _gap(base: BaseModel, prompt: Sequence[int], wanted: Sequence[int], found: Sequence[int]) -> float:
    """By how much the wanted token is likelier where two answers part; without end where one is cut off."""
    place = next((place for place, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other), None)
    if place is None:
        return float("inf")
    logits = base.model(input_ids=torch.tensor([[*prompt, *wanted[:place]]])).logits[0, -1]
    return abs(float(logits[wanted[place]] - logits[found[place]]))


def suite_prompts(base: BaseModel, suite: SuiteName, count: int, system: str | None) -> list[list[int]]:
    """As many attacks of each family as safe look-alikes, in the order in which an evaluation asks them."""
    spec = SecuritySpec(suite=suite, system_prompt=system)
    each = max(1, count // (len(spec.attacks) + 1))
    whole = choose_prompts(spec.model_copy(update={"max_prompts": each}), base.folder).evaluation
    return [
        render(base.tokenizer, prompt.messages)
        for family in build_suites(whole, spec, base.tokenizer)
        for prompt in family.prompts
    ]


def _generate(
    base: BaseModel, prompts: Sequence[Sequence[int]], most: int, size: int, *, by_length: bool = False
) -> Answers:
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]) if by_length else index)
    rows: Answers = [[] for _ in prompts]
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        output = generate_batch(base, [prompts[index] for index in chosen], most)
        for index, row in zip(chosen, output.tolist(), strict=True):
            ends = [place + 1 for place, token in enumerate(row) if token in base.stop_ids]
            rows[index] = row[: ends[0]] if ends else row
    return rows


@torch.inference_mode()
def generate_batch(base: BaseModel, prompts: Sequence[Sequence[int]], most: int) -> Tensor:
    """The new tokens of transformers' own loop, padded on the right: `batch new`."""
    ids, mask = (each.to(base.device) for each in pad(prompts, base.pad_id, side="left"))
    config = GenerationConfig(
        max_new_tokens=most, do_sample=False, pad_token_id=base.pad_id, eos_token_id=base.stop_ids
    )
    output = cast(_Generates, base.model).generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return output[:, ids.shape[1] :]


if __name__ == "__main__":
    typer.run(main)
