"""Prompts are what the model's own template writes, and padding changes no row."""

import copy

import pytest
import torch

from core.errors import InvalidInput
from core.lm.load import BaseModel
from core.lm.prompts import pad, render
from core.schemas.data import Message

USER = Message(role="user", content="Hello <there>\n  you")
SYSTEM = Message(role="system", content="Be kind.")


def test_a_prompt_ends_where_the_assistant_begins(base: BaseModel) -> None:
    tokens = render(base.tokenizer, (SYSTEM, USER))
    assert base.tokenizer.decode(tokens) == "<|system|>Be kind.<|end|><|user|>Hello <there>\n  you<|end|><|assistant|>"


TURNS = (SYSTEM, USER, Message(role="assistant", content="Hi."), Message(role="user", content="How do I hack a map?"))


@pytest.mark.parametrize("before", [(USER,), TURNS])
@pytest.mark.parametrize("opening", ["Sure", "Of course. Take\n1.", " ", "<|end|>"])
def test_a_last_turn_of_the_assistant_is_the_beginning_of_its_answer(
    base: BaseModel, before: tuple[Message, ...], opening: str
) -> None:
    asked = str(
        base.tokenizer.apply_chat_template(
            [turn.model_dump() for turn in before], tokenize=False, add_generation_prompt=True
        )
    )
    tokens = render(base.tokenizer, (*before, Message(role="assistant", content=opening)))
    assert tokens == base.tokenizer(asked + opening, add_special_tokens=False)["input_ids"]
    assert tokens[: len(render(base.tokenizer, before))] == render(base.tokenizer, before)


def test_an_empty_beginning_is_none(base: BaseModel) -> None:
    assert render(base.tokenizer, (USER, Message(role="assistant", content=""))) == render(base.tokenizer, (USER,))


def test_a_whole_conversation_may_end_with_the_assistant(base: BaseModel) -> None:
    tokens = render(base.tokenizer, (USER, Message(role="assistant", content="Hi.")), begun=False)
    assert base.tokenizer.decode(tokens) == "<|user|>Hello <there>\n  you<|end|><|assistant|>Hi.<|end|><|assistant|>"


@pytest.mark.parametrize(("messages", "param"), [((SYSTEM, USER), "security.system_prompt"), ((USER,), "base_model")])
def test_a_template_that_refuses_the_turns_is_no_crash(
    base: BaseModel, messages: tuple[Message, ...], param: str
) -> None:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = "{{ raise_exception('Not these roles') }}"
    with pytest.raises(InvalidInput) as caught:
        render(tokenizer, messages)
    assert caught.value.code == "chat_template_unsupported"
    assert caught.value.param == param
    assert "Not these roles" in caught.value.message


TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}" + TURNS,
        TURNS.replace("in messages", "in messages if m.role != 'system'"),
    ],
    ids=["rejects", "omits"],
)
def test_a_system_prompt_stands_in_the_first_user_turn_where_the_template_has_no_place(
    base: BaseModel, template: str
) -> None:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = template
    assert tokenizer.decode(render(tokenizer, (SYSTEM, USER))) == f"[user]Be kind.\n\n{USER.content}"
    assert tokenizer.decode(render(tokenizer, (USER,))) == f"[user]{USER.content}"


def test_padding() -> None:
    rows = [[5, 6, 7], [8]]
    ids, mask = pad(rows, 0, side="left")
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = pad(rows, 9, side="right")
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long
