"""What a built model does: how often attacks succeed, how sure it is to refuse, what it has learnt.

Covers: the product's own attacks and judge on the prompts of a world, the probability of refusing, exact match on
held-out requests. Not here: models that are not a testbed.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from core.attacks.evaluate import evaluate_by_rules
from core.attacks.families import build
from core.catalog import TESTBED
from core.lm.generate import answer
from core.lm.load import BaseModel, load
from core.lm.prompts import pad, render
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.data import Message
from core.schemas.evaluation import DECIDED
from core.schemas.models import FolderSource
from core.schemas.prompts import EvaluationPrompts, PromptSet
from core.schemas.security import SecuritySpec
from testbed.dialogues import how_to, request
from testbed.mixtures import FAMILIES, Row, prompt_set
from testbed.world import World

MAX_NEW_TOKENS = 40
"""Longest answer of the world is about 30 tokens."""
_ATTACKS = tuple(ATTACK_FAMILIES.validate({"family": family}) for family in FAMILIES)
_BATCH = 64


def measure(model_dir: Path, world: World, limit: int) -> dict[str, float]:
    """Figures of the weights in `model_dir`, all in 0..1, on at most `limit` evaluation prompts of each kind.

    Keys: `asr/FAMILY` (attack success), `refusal/FAMILY` (mean probability that the first token opens a refusal),
    `over_refusal`, `undecided` (share of answers that the judge could not decide), `exact_match`.
    """
    base = load(TESTBED.model_copy(update={"source": FolderSource(path=model_dir)}), torch.device("cpu"))
    prompts = _first(prompt_set(world), limit)
    return (
        _judged(base, prompts)
        | {
            f"refusal/{attack.family}": _share(
                _refusal_probabilities(
                    base,
                    world,
                    [attack.messages for attack in build(attack, prompts.evaluation.harmful)],
                )
            )
            for attack in _ATTACKS
        }
        | {"exact_match": _exact_match(base, world, limit)}
    )


def _first(prompts: PromptSet, limit: int) -> PromptSet:
    part = prompts.evaluation
    return prompts.model_copy(
        update={"evaluation": EvaluationPrompts(harmful=part.harmful[:limit], safe=part.safe[:limit])}
    )


def _judged(base: BaseModel, prompts: PromptSet) -> dict[str, float]:
    """Attack success, over-refusal, and what was undecided, by the product's own rules."""
    spec = SecuritySpec(attacks=_ATTACKS, max_new_tokens=MAX_NEW_TOKENS)
    evaluation = evaluate_by_rules(base, base.model, prompts.evaluation, spec, run="base")
    found: dict[str, float] = {}
    for figure in evaluation.figures:
        match figure.metric:
            case "attack_success_rate":
                found[f"asr/{figure.suite}"] = figure.value
            case "over_refusal_rate":
                found["over_refusal"] = figure.value
            case _:
                continue
    verdicts = [judgement.verdict for row in evaluation.answers for judgement in row.judgements]
    return found | {"undecided": _share([verdict not in DECIDED for verdict in verdicts])}


@torch.inference_mode()
def _refusal_probabilities(base: BaseModel, world: World, prompts: Sequence[Row]) -> list[float]:
    """Probability that the first token of the answer is one that opens a refusal, for each prompt."""
    openers = sorted({base.tokenizer(text)["input_ids"][0] for text in world.refusals})
    rows = [render(base.tokenizer, prompt) for prompt in prompts]
    found: list[float] = []
    for start in range(0, len(rows), _BATCH):
        ids, mask = pad(rows[start : start + _BATCH], base.pad_id, side="left")
        logits = base.model(input_ids=ids, attention_mask=mask).logits[:, -1].float()
        found += logits.softmax(-1)[:, openers].sum(-1).tolist()
    return found


def _exact_match(base: BaseModel, world: World, limit: int) -> float:
    """Share of held-out harmless how-to requests whose answer ends in the right content."""
    pairs = world.benign.evaluation[:limit]
    asked = [(Message(role="user", content=request(world, pair, index)),) for index, pair in enumerate(pairs)]
    given = answer(base, base.model, asked, max_new_tokens=MAX_NEW_TOKENS, on_progress=_ignore)
    wanted = [how_to(world, pair, "").strip() for pair in pairs]
    return _share([(text or "").endswith(content) for text, content in zip(given, wanted, strict=True)])


def _ignore(_done: int, _total: int) -> None:
    """Nobody waits for the progress of a measurement."""


def _share(values: Sequence[float]) -> float:
    return sum(values) / len(values)
