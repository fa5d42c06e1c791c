"""A tiny random model in a folder, for judges that the worker loads itself."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.lm.load import BaseModel
from tests.core.helpers import FAMILIES

CONTEXT = 4096


@pytest.fixture(scope="session")
def judge_folder(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights and a context for judge prompts, and the testbed's tokenizer."""
    folder = tmp_path_factory.mktemp("judge") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = FAMILIES["llama"] | {"max_position_embeddings": CONTEXT}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **options))
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": CONTEXT}))
    return folder
