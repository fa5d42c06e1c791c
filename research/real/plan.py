"""What an experiment on a real model is made of, written down before its first run.

A plan is a Markdown file: the hypothesis, the measure and what would refute it in prose, and one block of TOML with the
settings. Not here: what the arms are (research.real.arms).
"""

import re
import tomllib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TypeVar

from pydantic import Field

from core.schemas.base import Frozen
from research.real.arms import ArmName

Item = TypeVar("Item")
_SETTINGS = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Plan(Frozen):
    """The settings of an experiment."""

    arms: tuple[ArmName, ...] = Field(min_length=1)
    """What is trained, beside the base model."""
    rates: tuple[float, ...] = Field(min_length=1)
    """Learning rates of the sweep: each arm uses the one with its lowest validation loss."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Seeds of the runs that are compared: order of rows, initial weights, random sets, probe of the map."""
    sweep_seed: int = 1000
    """Seed of the sweep, none of those that are compared."""
    steps: int = Field(ge=2)
    """Optimizer steps of every run."""
    batch_size: int = 8
    """Rows of a step."""
    points: int = 4
    """Measurements of a run, evenly spread; the last at its end."""
    max_length: int = 160
    """Tokens of a row; the rest is cut."""
    rows: int = 240
    """Training rows, drawn from the file."""
    validation_rows: int = 48
    """Other rows, for the validation loss."""
    answered_rows: int = 24
    """Validation rows that are answered at the end of a run, for ROUGE-L."""
    harmful: int = 60
    """Harmful requests, drawn from the file."""
    only_refused: bool = True
    """Whether only requests that the base model refuses are drawn. Many of these are refused narrowly, and some flip
    after any change of the weights, while none that it complies with can flip back: all arms look worse than they do
    over all requests."""
    safe: int = 40
    """Safe look-alikes, for over-refusal."""
    first_request: int = 0
    """Requests of the file's fixed random order that are skipped: a plan with other requests begins after those of an
    earlier one."""
    answer_tokens: int = 24
    """Tokens of a judged answer: a refusal shows in its first words."""


def read_plan(path: Path) -> Plan:
    """The settings in a plan.

    Raises:
        ValueError: the file does not have exactly one block of TOML.
        pydantic.ValidationError: a setting is unknown or wrong.
    """
    blocks = _SETTINGS.findall(path.read_text(encoding="utf-8"))
    if len(blocks) != 1:
        raise ValueError(f"{path} has {len(blocks)} blocks of TOML; a plan has one, with its settings")
    return Plan.model_validate(tomllib.loads(blocks[0]))


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return sha256(path.read_bytes()).hexdigest()


def shuffle(items: Sequence[Item], name: str) -> list[Item]:
    """The items in a random order that is always the same."""
    return Random(name).sample(list(items), len(items))  # noqa: S311 - reproducible, not secret
