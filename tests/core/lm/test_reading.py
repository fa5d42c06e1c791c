"""What is set aside so that a model loads: types, attention, padding, own code; and messages without paths."""

from pathlib import Path

import pytest
import torch

from core.errors import InvalidModel
from core.lm.load import load
from core.lm.reading import context_of, read_config, reading
from tests.core.helpers import VOCABULARY, logits, tiny
from tests.core.lm.models import CPU, config, entry


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({}, []),
        ({"dtype": "bf16"}, []),
        ({"torch_dtype": "float8_e4m3fn"}, []),
        ({"dtype": "torch.int8", "torch_dtype": 5}, []),
        ({"_attn_implementation": "eager"}, []),
        ({"attn_implementation": "sdpa"}, []),
        ({"_attn_implementation": "flash_attention_2"}, ["attention_replaced"]),
        ({"attn_implementation": "flash_attention_3"}, ["attention_replaced"]),
        ({"attn_implementation": "kernels-community/flash-attn"}, ["attention_replaced"]),
        ({"attn_implementation": "nonsense"}, ["attention_replaced"]),
        ({"pad_token_id": VOCABULARY}, ["pad_token_replaced"]),
        ({"pad_token_id": -1}, ["pad_token_replaced"]),
        ({"bos_token_id": 10**6}, []),
        ({"auto_map": {"AutoModelForCausalLM": "own.Model"}}, ["own_code_ignored"]),
    ],
)
def test_settings_that_change_nothing_that_is_computed(
    folder: Path, fields: dict[str, object], codes: list[str]
) -> None:
    config(**fields)(folder)
    found = load(entry(folder), CPU)
    assert [warning.code for warning in found.warnings] == codes
    assert all("'small'" in warning.message for warning in found.warnings)
    assert torch.allclose(logits(found.model), logits(tiny("llama")), atol=1e-5)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    assert 0 <= found.pad_id < VOCABULARY
    assert found.stop_ids == [4]


def test_an_end_of_sequence_that_is_no_token_is_not_waited_for(folder: Path) -> None:
    config(eos_token_id=-1)(folder)
    (folder / "generation_config.json").unlink()
    assert load(entry(folder), CPU).stop_ids == []


def test_the_context_is_read_without_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert context_of(read_config(entry(folder), folder)) == 64
    config(hidden_size="wide")(folder)
    with pytest.raises(InvalidModel) as caught:
        read_config(entry(folder), folder)
    assert caught.value.code == "model_unreadable"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError("no file /srv/models/small/x.json found"), "no file the model's folder/x.json found"),
        (ValueError("see '/opt/lib/python3/torch/nn.py'"), "see 'nn.py'"),
        (RuntimeError("visit https://example.org/models/x"), "visit https://example.org/models/x"),
        (ImportError("flash_attn is missing"), "flash_attn is missing"),
        (TypeError("of two\n  lines"), "of two lines"),
        (AssertionError(), "AssertionError"),
        (Exception("data did not match"), "data did not match"),
    ],
)
def test_errors_of_libraries_show_no_path(error: Exception, shown: str) -> None:
    folder = Path("/srv/models/small")
    with pytest.raises(InvalidModel) as caught, reading(entry(folder), folder):
        raise error
    assert caught.value.message == f"The base model 'small' cannot be loaded: {shown}"


def test_long_errors_are_cut_and_other_errors_pass() -> None:
    folder = Path("/srv")
    with pytest.raises(InvalidModel) as caught, reading(entry(folder), folder, "tokenizer_unreadable"):
        raise ValueError("x" * 10_000)
    assert caught.value.code == "tokenizer_unreadable"
    assert len(caught.value.message) < 500
    with pytest.raises(StopIteration), reading(entry(folder), folder):
        raise StopIteration
