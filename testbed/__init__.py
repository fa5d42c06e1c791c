"""The small aligned chat model on which jobs run without downloads or a GPU.

Covers: the paths of the shipped model and data. Importing this package does not import torch. Not here: building them
(testbed.build).
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
"""Weights, tokenizer, chat template and prompt set, written by `testbed.build`."""

DATA_DIR: Path = Path(__file__).parent / "data"
"""The tuning sets of the model: `instructions.jsonl` and `arithmetic.jsonl`."""
