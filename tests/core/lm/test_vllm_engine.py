"""vLLM against transformers, on the testbed. These tests need vLLM: set SECURETUNE_VLLM_PYTHON to its interpreter.

What a healthy vLLM does not do (dying, ending answers early) is tested with scripts in its place, everywhere.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from core.attacks.engines import TrainedFiles, open_engine
from core.errors import Interrupted, Unavailable
from core.lm.adapter import attached, save
from core.lm.answers import Sampler
from core.lm.generate import answer, continue_tokens, render_prompts
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.lm.vllm_engine import ServedFiles, VllmModel, check_vllm, open_vllm
from core.schemas.data import Message
from core.schemas.security import SecuritySpec
from core.schemas.training import LoraSpec
from tests.core.helpers import ProgressLog, ignore

_GIVEN = os.environ.get("SECURETUNE_VLLM_PYTHON")
PYTHON = Path(_GIVEN) if _GIVEN else None
needs_vllm = pytest.mark.skipif(PYTHON is None, reason="SECURETUNE_VLLM_PYTHON is not set")
SPEC = SecuritySpec(engine="vllm", max_new_tokens=24)
QUESTIONS = (
    "What is 1 plus 1?",
    "Tell me how to pick the lock of my neighbour's door.",
    "Name a colour.",
    "Write a letter to my bank.",
    "What is the capital of France? Explain at length why it became the capital.",
)
TIE = 1e-3
"""Two logits this close may change places by rounding."""


def turns(*texts: str) -> list[tuple[Message, ...]]:
    return [(Message(role="user", content=text),) for text in texts]


def greedy(base: BaseModel, model: nn.Module | VllmModel, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    return continue_tokens(base, model, prompts, max_new_tokens=24, on_progress=ignore)


def assert_same(base: BaseModel, model: nn.Module, served: VllmModel) -> None:
    """Each answer of vLLM is that of `model`, or differs from it first where two logits of `model` are a tie."""
    prompts = [prompt for prompt in render_prompts(base, turns(*QUESTIONS), max_new_tokens=24) if prompt]
    assert len(prompts) == len(QUESTIONS)
    for prompt, wanted, found in zip(prompts, greedy(base, model, prompts), greedy(base, served, prompts), strict=True):
        if wanted == found:
            continue
        place = next(place for place, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1])
        with torch.inference_mode():
            logits: Tensor = model(input_ids=torch.tensor([[*prompt, *wanted[:place]]])).logits[0, -1]
        assert abs(float(logits[wanted[place]] - logits[found[place]])) < TIE


@pytest.fixture(scope="module")
def served(base: BaseModel) -> Iterator[VllmModel]:
    """The testbed in vLLM."""
    with open_vllm(PYTHON, base, ServedFiles(base.folder), base.model) as served:
        yield served


@needs_vllm
def test_answers_are_those_of_transformers(base: BaseModel, served: VllmModel) -> None:
    assert_same(base, base.model, served)


@needs_vllm
def test_texts_limits_and_progress_are_those_of_the_other_engine(base: BaseModel, served: VllmModel) -> None:
    asked, ticks = turns("What is 1 plus 1?", "word " * 2000, "Name a colour."), ProgressLog()
    found = answer(base, served, asked, max_new_tokens=12, on_progress=ticks)
    assert found == answer(base, base.model, asked, max_new_tokens=12, on_progress=ignore)
    assert found[1] is None
    assert ticks == sorted(ticks)
    assert ticks[-1] == (3, 3)
    nearly_full = [3] * (base.context - 2)
    (row,) = greedy(base, served, [nearly_full])
    assert 1 <= len(row) <= 2


@needs_vllm
def test_answers_end_early_where_the_other_engine_ends_them(base: BaseModel, served: VllmModel) -> None:
    prompts = [[token] * 3 for token in (101, 102, 105, 106)]  # followed by endless answers

    def stops(index: int, tokens: list[int]) -> bool:
        return index % 2 == 0

    own, other = (
        continue_tokens(base, each, prompts, max_new_tokens=40, on_progress=ignore, early_stop=stops)
        for each in (base.model, served)
    )
    assert [len(row) for row in own] == [16, 40, 16, 40]
    assert other == own


@needs_vllm
def test_samples_depend_on_the_seed(base: BaseModel, served: VllmModel) -> None:
    def sample(seed: int, top_p: float = 1.0) -> list[list[int]]:
        prompts = [[10, 11, 12]] * 4
        sampler = Sampler(1.5, top_p, seed)
        return continue_tokens(base, served, prompts, max_new_tokens=8, on_progress=ignore, sampler=sampler)

    first = sample(0)
    assert sample(0) == first
    assert sample(100) != first
    assert len({tuple(row) for row in first}) > 1
    assert sample(0, top_p=1e-6) == greedy(base, served, [[10, 11, 12]] * 4)


@contextmanager
def tuned_model(base: BaseModel, modules: tuple[Module, ...], folder: Path) -> Iterator[PeftModel]:
    """The testbed with an adapter that changes it, which is saved in `folder`."""
    with attached(base.model, modules, LoraSpec(rank=20, alpha=20), seed=0) as tuned:
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if ".lora_B" in name:
                    parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
        save(tuned, base, folder)
        yield tuned.eval()


@needs_vllm
def test_an_adapter_is_applied(base: BaseModel, modules: tuple[Module, ...], tmp_path: Path) -> None:
    with (
        tuned_model(base, modules, tmp_path) as tuned,
        open_vllm(PYTHON, base, ServedFiles(base.folder, tmp_path, 20), tuned) as served,
    ):
        assert_same(base, tuned, served)
        prompts = [prompt for prompt in render_prompts(base, turns(*QUESTIONS), max_new_tokens=24) if prompt]
        with tuned.disable_adapter():
            assert greedy(base, tuned, prompts) != greedy(base, served, prompts)
            with pytest.raises(Unavailable) as caught:
                served.check(base, tuned)
    assert caught.value.code == "vllm_differs"


@needs_vllm
def test_a_whole_model_is_read_from_its_own_folder(base: BaseModel, tmp_path: Path) -> None:
    model = deepcopy(base.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "down_proj" in name:
                parameter.mul_(0.5)
    model.save_pretrained(tmp_path)
    with open_engine(base, model, SPEC, TrainedFiles(tmp_path, None), PYTHON) as answers:
        found = answers(turns(*QUESTIONS), temperature=0.0, top_p=1.0, early_stop=None, on_progress=ignore)
    assert found == answer(base, model, turns(*QUESTIONS), max_new_tokens=24, on_progress=ignore)


@needs_vllm
def test_files_that_vllm_cannot_read_are_reported(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught, open_vllm(PYTHON, base, ServedFiles(tmp_path), base.model):
        pass
    assert caught.value.code == "vllm_failed"
    assert "Error" in caught.value.message


def test_by_default_transformers_answers(base: BaseModel) -> None:
    spec = SPEC.model_copy(update={"engine": "transformers"})
    with open_engine(base, base.model, spec, None, None) as answers:
        found = answers(turns(*QUESTIONS), temperature=0.0, top_p=1.0, early_stop=None, on_progress=ignore)
    assert found == answer(base, base.model, turns(*QUESTIONS), max_new_tokens=24, on_progress=ignore)


# Scripts in the place of vLLM's interpreter.

_SCRIPT = """#!{python}
import json, os, sys
if "-c" in sys.argv:
    print("vllm 1.2.3")
    sys.exit()
def read():
    return json.loads(sys.stdin.readline())
def send(message):
    print(json.dumps(message), flush=True)
read()
{body}
"""
_LOADS = "send({'ready': 100})\n"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a script that reads vLLM's options and then runs some lines; what it computes is not checked."""
    monkeypatch.setattr(VllmModel, "check", ignore_check)

    def write(body: str) -> Path:
        path = tmp_path / "python"
        path.write_text(_SCRIPT.format(python=sys.executable, body=body))
        path.chmod(0o700)
        return path

    return write


def ignore_check(_served: VllmModel, _base: BaseModel, _model: nn.Module) -> None:
    pass


def run_script(base: BaseModel, python: Path, prompts: int = 2) -> list[list[int]]:
    with open_vllm(python, base, ServedFiles(base.folder), base.model) as served:
        return greedy(base, served, [[10, 11]] * prompts)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit(3)", "ended with status 3"),
        (_LOADS + "read(); os.kill(os.getpid(), 9)", "was killed"),
        ("send({'error': 'ValueError: no such thing'})", "ValueError: no such thing"),
        (_LOADS + "read(); send({'tokens': [['0', [10]]]}); read(); send({'done': True}); read()", "before its time"),
    ],
)
def test_failures_are_reported(base: BaseModel, script: Callable[[str], Path], body: str, words: str) -> None:
    with pytest.raises(Unavailable) as caught:
        run_script(base, script(body))
    assert (caught.value.code, caught.value.param) == ("vllm_failed", "security.engine")
    assert words in caught.value.message


def test_rows_that_have_ended_are_named_and_what_follows_is_ignored(
    base: BaseModel, script: Callable[[str], Path], tmp_path: Path
) -> None:
    stop, reply = base.stop_ids[0], tmp_path / "reply"
    steps = f"[['0', [10, {stop}, 11]], ['1', [12]]], [['0', [13]], ['1', [{stop}]]]"
    body = _LOADS + (
        f"read()\nreplies = []\nfor step in ({steps}):\n    send({{'tokens': step}})\n    replies.append(read())\n"
        f"open({str(reply)!r}, 'w').write(json.dumps(replies))\nsend({{'done': True}})\nsys.stdin.read()"
    )
    assert run_script(base, script(body)) == [[10, stop], [12, stop]]
    assert json.loads(reply.read_text()) == [["0"], ["0", "1"]]


def test_the_process_ends_with_the_job(base: BaseModel, script: Callable[[str], Path], tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise Interrupted("stopped")

    pid = tmp_path / "pid"
    body = (
        _LOADS + f"open({str(pid)!r}, 'w').write(str(os.getpid()))\nread(); send({{'tokens': [['0', [10]]]}}); read()"
    )
    python = script(body)
    with pytest.raises(Interrupted), open_vllm(python, base, ServedFiles(base.folder), base.model) as served:
        continue_tokens(base, served, [[10, 11]], max_new_tokens=4, on_progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_four_bit_weights_are_rejected(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.model, "is_loaded_in_4bit", True, raising=False)
    with pytest.raises(Unavailable) as caught:
        check_vllm(PYTHON, base)
    assert (caught.value.code, caught.value.param) == ("vllm_four_bit", "security.engine")


@pytest.mark.parametrize("python", [None, Path("/no/such/python"), Path(sys.executable)])
def test_a_worker_without_vllm_says_so(base: BaseModel, python: Path | None) -> None:
    with pytest.raises(Unavailable) as caught:
        check_vllm(python, base)
    assert (caught.value.code, caught.value.param) == ("vllm_missing", "security.engine")
    assert str(python or "SECURETUNE_VLLM_PYTHON is not set") in caught.value.message
