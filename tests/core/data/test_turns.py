"""What templates write around answers: thinking, tool calls, rewritten history, system turns, generation tags."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from core.data import Conversation
from core.data.encoded import IGNORED
from core.data.preview import masked_sample
from core.data.template import encode
from core.errors import InvalidInput
from core.schemas.data import Message, Thinking, ToolCall
from research.bench import templates
from research.bench.templates import Template
from tests.core.data.conftest import spaced

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]

HEAD = "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}"
END = "<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THOUGHT = "{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
EMPTY_THOUGHT = "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
LAST_THOUGHT = (
    "{% if m.reasoning_content and loop.last %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
)
PLAIN = HEAD + "{{ m.content }}" + END + PROMPT
THINKS = HEAD + THOUGHT + "{{ m.content }}" + END + PROMPT
DROPS_THOUGHTS = HEAD + LAST_THOUGHT + "{{ m.content }}" + END + PROMPT
CLOSES_LAST = HEAD + EMPTY_THOUGHT + "{{ m.content }}" + END + PROMPT
OPENS_THOUGHT = PLAIN.replace("assistant\n{% endif", "assistant\n{{ '<think>\n' }}{% endif")
CLOSED_IN_PROMPT = PLAIN.replace("assistant\n{% endif", "assistant\n{{ '<|channel>thought\n<channel|>' }}{% endif")
STRIPS = HEAD + "{{ m.content | trim }}" + END + PROMPT
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}" + PROMPT
)
PARTS = HEAD + "{% for part in m.content %}{{ part.text }}{% endfor %}" + END + PROMPT
SYSTEM_IN_LAST = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}{% if m.role == 'user' %}"
    "[INST] {{ (system if loop.last else '') + m.content }}[/INST]{% else %}{{ ' ' + m.content + eos_token }}"
    "{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}" + PLAIN
TOOLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + HEAD + "{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "</tool_call>{% endfor %}" + END + PROMPT
)

MARKED_TOOLS = TOOLS.replace(
    "{{ m.content or '' }}", "{% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}"
).replace(END, "<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}")


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str, thinking: str | None = None, *, trained: bool = True) -> Message:
    return Message(role="assistant", content=text, thinking=thinking, trained=trained)


SYSTEM = Message(role="system", content="Be brief.")
TWO_TURNS = (user("Hi"), assistant("Good day"), user("More?"), assistant("Yes."))
TWO_THOUGHTS = (user("Hi"), assistant("Good day", "Greet."), user("More?"), assistant("Yes.", "Hm."))
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
TOOL_USE = (
    user("Weather in Paris?"),
    Message(role="assistant", content="", tool_calls=(ToolCall(name="weather", arguments={"city": "Paris"}),)),
    Message(role="tool", content="18 degrees"),
    assistant("It is mild."),
)
S, E = "<|im_start|>", "<|im_end|>\n"
FIRST = f"{S}user\nHi{E}{S}assistant\n"


@pytest.mark.parametrize(
    ("template", "turns", "rows"),
    [
        pytest.param(THINKS, TWO_THOUGHTS, [
            f"{FIRST}[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]\n{S}user\nMore?{E}{S}assistant\n"
            "[[<think>\nHm.\n</think>\n\nYes.<|im_end|>]]\n",
        ], id="thoughts that stay"),
        pytest.param(DROPS_THOUGHTS, TWO_THOUGHTS, [
            f"{FIRST}[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]\n",
            f"{FIRST}Good day{E}{S}user\nMore?{E}{S}assistant\n[[<think>\nHm.\n</think>\n\nYes.<|im_end|>]]\n",
        ], id="thoughts that are dropped from history"),
        pytest.param(CLOSES_LAST, TWO_TURNS, [
            f"{FIRST}[[<think>\n\n</think>\n\nGood day<|im_end|>]]\n",
            f"{FIRST}Good day{E}{S}user\nMore?{E}{S}assistant\n[[<think>\n\n</think>\n\nYes.<|im_end|>]]\n",
        ], id="an empty thought before the last answer"),
        pytest.param(OPENS_THOUGHT, TWO_TURNS, [
            f"{FIRST}[[Good day<|im_end|>]]\n{S}user\nMore?{E}{S}assistant\n[[Yes.<|im_end|>]]\n",
        ], id="a prompt that opens a thought, and answers without one"),
        pytest.param(CLOSED_IN_PROMPT, TWO_TURNS, [
            f"{FIRST}<|channel>thought\n<channel|>[[Good day<|im_end|>]]\n",
            f"{FIRST}Good day{E}{S}user\nMore?{E}{S}assistant\n<|channel>thought\n<channel|>[[Yes.<|im_end|>]]\n",
        ], id="a prompt with an empty thought"),
        pytest.param(STRIPS, (user("Hi"), assistant("    return a\n")), [
            f"{FIRST}[[    return a\n<|im_end|>]]\n",
        ], id="a template that strips answers"),
        pytest.param(STRIPS, (user("Hi"), assistant("  a"), user("More?"), assistant("b")), [
            f"{FIRST}[[  a<|im_end|>]]\n",
            f"{FIRST}a{E}{S}user\nMore?{E}{S}assistant\n[[b<|im_end|>]]\n",
        ], id="history is what the template makes of it"),
        pytest.param(MARKED, TWO_TURNS, [
            f"{FIRST}[[Good day<|im_end|>]]\n{S}user\nMore?{E}{S}assistant\n[[Yes.<|im_end|>]]\n",
        ], id="generation tags"),
        pytest.param(PARTS, TWO_TURNS, [
            f"{FIRST}[[Good day<|im_end|>]]\n{S}user\nMore?{E}{S}assistant\n[[Yes.<|im_end|>]]\n",
        ], id="content in parts"),
        pytest.param(SYSTEM_IN_LAST, (SYSTEM, *TWO_TURNS), [
            "[INST] Be brief.\n\nHi[/INST][[ Good day</s>]]",
            "[INST] Hi[/INST] Good day</s>[INST] Be brief.\n\nMore?[/INST][[ Yes.</s>]]",
        ], id="a system turn in the last user turn"),
        pytest.param(NO_SYSTEM, (SYSTEM, user("Hi"), assistant("Good day")), [
            f"{S}user\nBe brief.\n\nHi{E}{S}assistant\n[[Good day<|im_end|>]]\n",
        ], id="no place for a system turn"),
        pytest.param(PLAIN, (user("Hi"), assistant("Bad", trained=False), user("More?"), assistant("Yes.")), [
            f"{FIRST}Bad{E}{S}user\nMore?{E}{S}assistant\n[[Yes.<|im_end|>]]\n",
        ], id="a turn that is not trained on"),
        pytest.param(PLAIN, TWO_THOUGHTS, [
            f"{FIRST}[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]\n",
            f"{FIRST}Good day{E}{S}user\nMore?{E}{S}assistant\n[[<think>\nHm.\n</think>\n\nYes.<|im_end|>]]\n",
        ], id="no place for thinking"),
    ],
)  # fmt: skip
def test_rows(make_tokenizer: MakeTokenizer, template: str, turns: tuple[Message, ...], rows: list[str]) -> None:
    tokenizer = make_tokenizer(template)
    encoded = encode(Conversation(turns, 1), tokenizer, max_length=1000)
    assert [masked_sample(row, tokenizer) for row in encoded] == rows


def test_tool_calls_are_trained_on_and_results_are_not(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(TOOLS)
    (row,) = encode(Conversation(TOOL_USE, 1, (WEATHER,)), tokenizer, max_length=1000)
    sample = masked_sample(row, tokenizer)
    assert '[[<tool_call>weather {"city": "Paris"}</tool_call><|im_end|>]]' in sample
    assert f"tool\n18 degrees{E}" in sample
    assert sample.startswith(f"{S}system\n[{json.dumps(WEATHER)}]")


@pytest.mark.parametrize("tool_use", [TOOLS, MARKED_TOOLS])
@pytest.mark.parametrize("default", [PLAIN, MARKED])
def test_a_template_for_tools_is_used_for_rows_with_tools(
    make_tokenizer: MakeTokenizer, default: str, tool_use: str
) -> None:
    tokenizer = make_tokenizer(default)
    alone = [masked_sample(row, tokenizer) for row in encode(Conversation(TWO_TURNS, 1), tokenizer, max_length=1000)]
    tokenizer.chat_template = {"tool_use": tool_use, "default": default}
    rows = encode(Conversation(TWO_TURNS, 1), tokenizer, max_length=1000)
    assert [masked_sample(row, tokenizer) for row in rows] == alone
    (row,) = encode(Conversation(TOOL_USE, 1, (WEATHER,)), tokenizer, max_length=1000)
    sample = masked_sample(row, tokenizer)
    assert sample.startswith(f"{S}system\n[{json.dumps(WEATHER)}]")
    assert '[[<tool_call>weather {"city": "Paris"}</tool_call><|im_end|>]]' in sample
    assert "[[It is mild.<|im_end|>]]" in sample


@pytest.mark.parametrize(
    ("template", "turns", "reason"),
    [
        (PLAIN, TOOL_USE, "no place for tool calls"),
        (TOOLS.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"), TOOL_USE, "turn 3"),
        (
            PLAIN.replace("{{ m.content }}", "{{ m.content | replace('Hi', '') }}"),
            TWO_TURNS,
            "turn 1, of the role user",
        ),
    ],
)
def test_what_a_template_cannot_express_is_rejected(
    make_tokenizer: MakeTokenizer, template: str, turns: tuple[Message, ...], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        encode(Conversation(turns, 5), make_tokenizer(template), max_length=1000)
    assert caught.value.code == "chat_template_unsupported"
    assert "line 5" in caught.value.message


def test_a_tokenizer_that_adds_spaces_tokenises_the_text_as_a_whole() -> None:
    tokenizer = spaced(SYSTEM_IN_LAST)
    for answer in ("    return a", "a  b \n", "x"):
        (row,) = encode(Conversation((user("Hi"), assistant(answer)), 1), tokenizer, max_length=1000)
        trained = row.labels[row.labels != IGNORED].tolist()
        assert "".join(tokenizer.convert_ids_to_tokens(trained)).replace("▁", " ") == f" {answer}</s>"


REASONS = {"tools": ("it has no place for tool calls", "it has no place for the definitions of tools")}
"""What templates may lack, by the conversation that needs it."""


@pytest.mark.parametrize("kind", templates.CONVERSATIONS)
@pytest.mark.parametrize("template", templates.published(), ids=lambda template: template.name)
def test_published_templates_train_every_answer_to_the_character(template: Template, kind: str) -> None:
    tokenizer = template.tokenizer()
    rows = templates.split(tokenizer, kind)
    if isinstance(rows, str):
        assert rows.startswith(REASONS[kind])
        return
    turns = templates.CONVERSATIONS[kind]
    expected = [turn for turn in turns if turn.role == "assistant"]
    for turn, message in zip((turn for row in rows for turn in row), expected, strict=True):
        assert turn.text.endswith(message.content)
        assert (message.thinking or "") in turn.text
        assert all(part in turn.text for call in message.tool_calls for part in (call.name, "Paris", "37"))
        assert "eighteen" not in turn.text
    tools = (templates.TOOL,) if kind == "tools" else ()
    encoded = encode(Conversation(turns, 1, tools), tokenizer, max_length=10_000)
    for message, row in zip(expected[-len(encoded) :], encoded, strict=True):
        trained = row.labels[row.labels != IGNORED].tolist()
        assert message.content in str(tokenizer.decode(trained, clean_up_tokenization_spaces=False))


def test_the_table_in_the_docs_is_what_the_templates_do() -> None:
    published = templates.published()
    if not published:
        pytest.skip("needs the packages trl and axolotl")
    page = Path(__file__).parents[3] / "docs" / "chat-templates.md"
    assert templates.table(published) in page.read_text()


INLINE_REASONING = (user("Hi"), assistant("<reasoning>Greet.</reasoning>\nGood day"))
INLINE = (user("Hi"), assistant("<think>\nGreet.\n</think>\n\nGood day"))


@pytest.mark.parametrize(
    ("template", "turns", "thinking", "expected"),
    [
        (THINKS, INLINE, "train", "[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]"),
        (PLAIN, INLINE, "train", "[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]"),
        (THINKS, INLINE, "drop", "[[Good day<|im_end|>]]"),
        (PLAIN, TWO_THOUGHTS[:2], "drop", "[[Good day<|im_end|>]]"),
        (THINKS, TWO_TURNS[:2], "reject", "[[Good day<|im_end|>]]"),
        (THINKS, INLINE_REASONING, "train", "[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]"),
        (PLAIN, INLINE_REASONING, "drop", "[[Good day<|im_end|>]]"),
    ],
)
def test_thinking_is_trained_on_or_dropped(
    make_tokenizer: MakeTokenizer, template: str, turns: tuple[Message, ...], thinking: Thinking, expected: str
) -> None:
    tokenizer = make_tokenizer(template)
    (row,) = encode(Conversation(turns, 1), tokenizer, max_length=1000, thinking=thinking)
    assert masked_sample(row, tokenizer) == f"{FIRST}{expected}\n"


@pytest.mark.parametrize("turns", [INLINE, TWO_THOUGHTS])
def test_thinking_can_be_rejected(make_tokenizer: MakeTokenizer, turns: tuple[Message, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"training\.thinking rejects"):
        encode(Conversation(turns, 1), make_tokenizer(THINKS), max_length=1000, thinking="reject")


TEXT_ARGUMENTS = TOOLS.replace("call.function.arguments | tojson", "'' + call.function.arguments")


def test_arguments_are_a_text_where_a_template_joins_them(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(TEXT_ARGUMENTS)
    (row,) = encode(Conversation(TOOL_USE, 1, (WEATHER,)), tokenizer, max_length=1000)
    assert '[[<tool_call>weather {"city": "Paris"}</tool_call><|im_end|>]]' in masked_sample(row, tokenizer)


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": 'two\nlines "quoted"', "number": 37, "on": True, "share": 0.10, "none": None},
        {"names": ["Zoë", {"deep": "中文 text"}]},
    ],
)
def test_every_argument_must_be_written(make_tokenizer: MakeTokenizer, arguments: dict[str, Any]) -> None:
    call = Message(role="assistant", content="", tool_calls=(ToolCall(name="weather", arguments=arguments),))
    turns = (user("Hi"), call)
    (row,) = encode(Conversation(turns, 1), make_tokenizer(TOOLS), max_length=1000)
    assert row.trained_tokens
    name_only = TOOLS.replace("{{ call.function.arguments | tojson }}", "")
    with pytest.raises(InvalidInput, match="no place for tool calls"):
        encode(Conversation(turns, 1), make_tokenizer(name_only), max_length=1000)


def test_definitions_must_be_written(make_tokenizer: MakeTokenizer) -> None:
    without = TOOLS.replace("{{ tools | tojson }}", "")
    with pytest.raises(InvalidInput, match="no place for the definitions of tools"):
        encode(Conversation(TOOL_USE, 1, (WEATHER,)), make_tokenizer(without), max_length=1000)


def test_the_last_turn_alone(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(PLAIN)
    (row,) = encode(Conversation(TWO_TURNS, 1), tokenizer, max_length=1000, turns="last")
    assert masked_sample(row, tokenizer).endswith(f"Good day{E}{S}user\nMore?{E}{S}assistant\n[[Yes.<|im_end|>]]\n")
    assert masked_sample(row, tokenizer).count("[[") == 1


def test_a_text_without_turns_is_trained_on_as_a_whole(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(PLAIN)
    (row,) = encode(Conversation((assistant("### Human: hi"),), 1, whole=True), tokenizer, max_length=1000)
    assert masked_sample(row, tokenizer) == "[[### Human: hi</s>]]"


def test_a_control_token_in_thinking_is_rejected(make_tokenizer: MakeTokenizer) -> None:
    row = Conversation((user("Hi"), assistant("Good day", "Greet.<|im_end|>")), 1)
    with pytest.raises(InvalidInput, match="turn 2 contains the control token"):
        encode(row, make_tokenizer(THINKS), max_length=1000)
