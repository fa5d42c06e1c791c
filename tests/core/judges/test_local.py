"""Judge models in memory: loaded on the first query, queried in batches, freed; special tokens stay text."""

import shutil
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import InvalidModel
from core.judges import local
from core.judges.local import LocalModel
from core.judges.model import Failure, Prompt, Reply, Request
from core.lm.load import BaseModel
from core.lm.prompts import render
from core.schemas.data import Message
from core.schemas.judges import JudgeEntry
from core.schemas.models import BaseModelEntry, FolderSource
from tests.core.judges.conftest import CONTEXT

CPU = torch.device("cpu")


def model(folder: Path, template: str | None = None) -> LocalModel:
    source = FolderSource(path=folder)
    return LocalModel(JudgeEntry(name="tiny", source=source, template=template), source, CPU)


def turn(text: str) -> Prompt:
    return (Message(role="user", content=text),)


def no_heartbeat() -> None:
    """Ignore the heartbeat."""


def ask(
    queried: LocalModel, prompts: Sequence[Prompt], *, most: int = 6, truncate: bool = False
) -> list[Reply | Failure]:
    told: dict[int, Reply | Failure] = {}
    queried.query(Request(prompts, most, truncate=truncate), told.__setitem__, no_heartbeat)
    return [told[index] for index in range(len(prompts))]


class Batches:
    """Stand-in for generation: records the batches and replies with fixed words."""

    def __init__(self, words: str = "yes") -> None:
        self.words = words
        self.batches: list[list[list[int]]] = []

    def __call__(
        self,
        base: BaseModel,
        _model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        on_progress: Callable[[int, int], None],
    ) -> list[list[int]]:
        self.batches.append([list(prompt) for prompt in prompts])
        on_progress(0, len(prompts))
        return [base.tokenizer(self.words, add_special_tokens=False)["input_ids"][:max_new_tokens] for _ in prompts]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    found = Batches()
    monkeypatch.setattr(local, "continue_tokens", found)
    return found


def test_batched_replies_equal_single_ones_and_have_their_tokens(judge_folder: Path, base: BaseModel) -> None:
    queried = model(judge_folder)
    prompts = [turn("What is 27 minus 20, and why?"), turn("Hello"), "raw text, as it is"]
    together = ask(queried, prompts)
    assert together == [ask(queried, [prompt])[0] for prompt in prompts]
    lengths = [len(render(base.tokenizer, prompt)) for prompt in prompts if not isinstance(prompt, str)]
    lengths.append(len(base.tokenizer("raw text, as it is", add_special_tokens=False)["input_ids"]))
    assert [each.prompt_tokens for each in together if isinstance(each, Reply)] == lengths
    assert all(isinstance(each, Reply) and 1 <= each.completion_tokens <= 6 for each in together)


def test_a_model_is_loaded_on_the_first_query_and_freed_by_close(
    judge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[nn.Module]] = []
    real = local.load

    def load(entry: BaseModelEntry, device: torch.device) -> BaseModel:
        found = real(entry, device)
        loaded.append(weakref.ref(found.model))
        return found

    monkeypatch.setattr(local, "load", load)
    queried = model(judge_folder)
    assert queried.identity.startswith("tiny sha256:")
    assert loaded == []
    ask(queried, [turn("Hello")])
    ask(queried, [turn("Hello")])
    (alive,) = loaded
    assert alive() is not None
    queried.close()
    assert alive() is None
    queried.close()
    ask(queried, [turn("Hello")])
    assert len(loaded) == 2


def test_the_identity_depends_on_name_and_files(judge_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(judge_folder, tmp_path / "copy")
    assert model(folder).identity == model(judge_folder).identity
    (folder / "generation_config.json").write_text("{}")
    assert model(folder).identity != model(judge_folder).identity


def test_the_special_tokens_are_known(judge_folder: Path) -> None:
    assert set(model(judge_folder).special_tokens) == {"<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}


def test_a_prompt_that_is_too_long_fails(judge_folder: Path, batches: Batches) -> None:
    short, long = ask(model(judge_folder), [turn("Hello"), turn("word " * CONTEXT)])
    assert isinstance(short, Reply)
    assert isinstance(long, Failure)
    assert "too long for the judge model's context" in long.reason
    assert len(batches.batches[0]) == 1


@pytest.mark.parametrize("prompt", [turn("word " * CONTEXT + "end"), "word " * CONTEXT + "end"])
def test_a_long_prompt_of_a_classifier_loses_its_beginning(
    judge_folder: Path, batches: Batches, base: BaseModel, prompt: Prompt
) -> None:
    queried = model(judge_folder, "{behaviour}{answer}")
    (found,) = ask(queried, [prompt], most=4, truncate=True)
    assert found == Reply("yes", CONTEXT - 4, len(base.tokenizer("yes", add_special_tokens=False)["input_ids"]))
    whole = (
        base.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if isinstance(prompt, str)
        else render(base.tokenizer, prompt)
    )
    assert batches.batches == [[whole[-(CONTEXT - 4) :]]]


def test_the_judged_answer_is_a_complete_turn(judge_folder: Path, batches: Batches, base: BaseModel) -> None:
    """The chat template closes the turn, so that the model does not continue the judged answer."""
    judged = (Message(role="user", content="How do I do it?"), Message(role="assistant", content="Like this."))
    ask(model(judge_folder), [judged])
    turns = [message.model_dump() for message in judged]
    text = base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert batches.batches == [[base.tokenizer(str(text), add_special_tokens=False)["input_ids"]]]
    assert "Like this.<|end|>" in str(text)


def test_many_prompts_are_split_with_the_shortest_first(judge_folder: Path, batches: Batches) -> None:
    prompts = ["word " * 20, "word"] * 150
    told: list[int] = []
    model(judge_folder).query(Request(prompts, 6), lambda index, _: told.append(index), no_heartbeat)
    assert [len(batch) for batch in batches.batches] == [256, 44]
    lengths = [len(prompt) for batch in batches.batches for prompt in batch]
    assert lengths == sorted(lengths)
    assert sorted(told) == list(range(300))


def test_every_token_is_a_heartbeat_which_may_stop(judge_folder: Path) -> None:
    beats = count()

    def stop() -> None:
        if next(beats) == 2:
            raise KeyboardInterrupt

    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        model(judge_folder).query(Request([turn("Hello")], 50), lambda index, _: told.append(index), stop)
    assert told == []


def test_a_classifier_with_a_template_needs_no_chat_template(judge_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(judge_folder, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    (found,) = ask(model(folder, "{behaviour}{answer}"), ["Is it? Answer:"])
    assert isinstance(found, Reply)
    with pytest.raises(InvalidModel, match="no chat template") as caught:
        ask(model(folder), [turn("Hello")])
    assert caught.value.code == "no_chat_template"


def test_an_invalid_folder_is_an_error_of_the_judge_model(judge_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(judge_folder, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    for path, code in ((tmp_path / "none", "model_missing"), (folder, "model_unreadable")):
        with pytest.raises(InvalidModel) as caught:
            ask(model(path), [turn("Hello")])
        assert caught.value.code == code
        assert caught.value.param == "security.judges"
        assert caught.value.message.startswith("The judge model 'tiny' cannot be used. ")
        with pytest.raises(InvalidModel) as caught:
            model(path).check()  # without loading it
        assert (caught.value.code, caught.value.param) == (code, "security.judges")


def test_a_chat_template_that_rejects_the_turns_is_an_error_of_the_judge_model(
    judge_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(judge_folder, tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(InvalidModel) as caught:
        ask(model(folder), [turn("Hello")])
    assert caught.value.code == "chat_template_unsupported"
    assert caught.value.param == "security.judges"
