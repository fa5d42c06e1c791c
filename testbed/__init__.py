"""The small aligned chat model that makes the main job run anywhere.

Covers: where the shipped model and data lie. Importing this reaches no torch. Not here: how they are made
(testbed.build).
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
"""Weights, tokenizer, chat template and prompt set, as `testbed.build` wrote them."""

DATA_DIR: Path = Path(__file__).parent / "data"
"""Tuning sets that go with the model: `instructions.jsonl` and `arithmetic.jsonl`."""
