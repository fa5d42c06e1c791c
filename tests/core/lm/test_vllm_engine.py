"""What vLLM would be told. A stand-in takes its place: it needs a GPU, so nothing here says that it works there."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from core.attacks.engines import TrainedFiles, open_engine
from core.errors import Unavailable
from core.lm.generate import answer
from core.lm.load import BaseModel
from core.lm.vllm_engine import check_vllm
from core.schemas.data import Message
from core.schemas.security import SecuritySpec
from tests.core.helpers import ProgressLog, ignore

SPEC = SecuritySpec(engine="vllm", max_new_tokens=12)


@dataclass
class Told:
    """What the stand-in was told."""

    engine: dict[str, Any]
    calls: list[tuple[list[list[int]], list[dict[str, Any]], Any]]


@pytest.fixture
def told(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> Told:
    """A stand-in whose answers are the testbed's own."""
    found = Told({}, [])

    class Engine:
        def __init__(self, **options: Any) -> None:
            found.engine = options

        def generate(
            self, prompts: Sequence[dict[str, list[int]]], sampling: Sequence[dict[str, Any]], **options: Any
        ) -> list[SimpleNamespace]:
            rows = [prompt["prompt_token_ids"] for prompt in prompts]
            assert options["use_tqdm"] is False
            found.calls.append((rows, list(sampling), options["lora_request"]))
            token = base.tokenizer("yes", add_special_tokens=False)["input_ids"]
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=token)]) for _ in rows]

    vllm, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    vllm.__dict__.update(LLM=Engine, SamplingParams=dict)
    request.__dict__["LoRARequest"] = _options
    for name, module in {"vllm": vllm, "vllm.lora": lora, "vllm.lora.request": request}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


def _options(*options: object) -> tuple[object, ...]:
    return options


def _there(_name: str) -> object:
    return object()


def turns(*texts: str) -> list[tuple[Message, ...]]:
    return [(Message(role="user", content=text),) for text in texts]


def test_the_base_is_asked_with_token_ids_and_its_own_stops(base: BaseModel, told: Told) -> None:
    ticks = ProgressLog()
    with open_engine(base, base.model, SPEC, None) as answers:
        found = answers(
            turns("One?", "word " * 2000, "Two?"), temperature=0.0, top_p=1.0, early_stop=None, on_progress=ticks
        )
    assert found == ["yes", None, "yes"]
    assert ticks[-1] == (2, 2)
    assert told.engine["model"] == str(base.folder)
    assert told.engine["enable_lora"] is False
    assert told.engine["trust_remote_code"] is False
    ((rows, sampling, request),) = told.calls
    assert [base.tokenizer.decode(row).count("One?") for row in rows] == [1, 0]
    assert [each["seed"] for each in sampling] == [0, 2]
    assert all(each["stop_token_ids"] == base.stop_ids and each["temperature"] == 0.0 for each in sampling)
    assert request is None


def test_an_adapter_is_a_request_and_a_whole_model_another_folder(base: BaseModel, told: Told, tmp_path: Path) -> None:
    with open_engine(base, base.model, SPEC, TrainedFiles(tmp_path, 20)) as answers:
        answers(turns("One?"), temperature=0.7, top_p=0.9, early_stop=None, on_progress=ignore)
    assert (told.engine["model"], told.engine["enable_lora"]) == (str(base.folder), True)
    assert told.engine["max_lora_rank"] == 32
    ((_, asked, request),) = told.calls
    assert (asked[0]["temperature"], asked[0]["top_p"]) == (0.7, 0.9)
    assert request == ("tuned", 1, str(tmp_path))
    with open_engine(base, base.model, SPEC, TrainedFiles(tmp_path, None)):
        assert (told.engine["model"], told.engine["enable_lora"]) == (str(tmp_path), False)


def test_by_default_transformers_answers(base: BaseModel) -> None:
    spec = SPEC.model_copy(update={"engine": "transformers"})
    asked = turns("What is 1 plus 1?", "Hello")
    with open_engine(base, base.model, spec, None) as answers:
        found = answers(asked, temperature=0.0, top_p=1.0, early_stop=None, on_progress=ignore)
    assert found == answer(base, base.model, asked, max_new_tokens=12, on_progress=ignore)


def test_what_is_missing_is_told_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable) as caught:
        check_vllm(torch.device("cuda"))
    assert (caught.value.code, caught.value.param) == ("vllm_missing", "security.engine")
    monkeypatch.setattr("core.lm.vllm_engine.find_spec", _there)
    with pytest.raises(Unavailable) as caught:
        check_vllm(torch.device("cpu"))
    assert caught.value.code == "vllm_needs_cuda"
    check_vllm(torch.device("cuda"))
