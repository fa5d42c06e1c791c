"""What templates write around answers: thinking, tool calls, rewritten history, system turns, generation tags."""

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from core.data import Conversation
from core.data.batches import masked_sample
from core.data.template import IGNORED, encode
from core.data.turns import ChatTemplate, UnsupportedTurns
from core.errors import InvalidInput
from core.schemas.data import Message, Thinking, ToolCall

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
        (PLAIN, TWO_THOUGHTS, "no place for thinking"),
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


def spaced(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space before every text, as those of Llama 2 do."""
    vocab = {"<unk>": 0, "</s>": 1, "▁": 2, **{chr(code): code for code in range(3, 127)}}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", chat_template=template
    )


def test_a_tokenizer_that_adds_spaces_tokenises_the_text_as_a_whole() -> None:
    tokenizer = spaced(SYSTEM_IN_LAST)
    for answer in ("    return a", "a  b \n", "x"):
        (row,) = encode(Conversation((user("Hi"), assistant(answer)), 1), tokenizer, max_length=1000)
        trained = row.labels[row.labels != IGNORED].tolist()
        assert "".join(tokenizer.convert_ids_to_tokens(trained)).replace("▁", " ") == f" {answer}</s>"


def published_templates() -> list[Path]:
    """Chat templates of public models, if the packages trl and axolotl are installed; they are not imported."""
    folders = {"trl": "chat_templates", "axolotl": "utils/chat_templates/templates"}
    found = [(find_spec(package), folder) for package, folder in folders.items()]
    roots = [Path(spec.origin).parent / folder for spec, folder in found if spec is not None and spec.origin]
    return [path for root in roots for path in sorted(root.glob("*.jinja"))]


CONVERSATIONS = {
    "single": (user("Hi there"), assistant("  Good day\n")),
    "multi": TWO_TURNS,
    "system": (SYSTEM, *TWO_TURNS),
    "thinking": TWO_THOUGHTS,
}


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("path", published_templates(), ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_published_templates_train_every_answer_to_the_character(
    make_tokenizer: MakeTokenizer, path: Path, kind: str
) -> None:
    template = path.read_text(encoding="utf-8")
    tokenizer = make_tokenizer(template, bos="<bos>")
    bars = "|\N{FULLWIDTH VERTICAL LINE}"
    control = re.findall(rf"<[{bars}][^{bars}<>\n']{{1,40}}[{bars}]>|<(?:turn\||\|turn|\w+_of_turn)>", template)
    tokenizer.add_tokens(sorted(set(control)), special_tokens=True)
    turns = CONVERSATIONS[kind]
    chat = ChatTemplate(tokenizer)
    if kind == "thinking" and not chat.has_thinking:
        with pytest.raises(UnsupportedTurns, match="no place for thinking"):
            chat.split_rows(turns)
        return
    rows = chat.split_rows(turns)
    expected = [turn for turn in turns if turn.role == "assistant"]
    for turn, message in zip((turn for row in rows for turn in row), expected, strict=True):
        assert turn.text.endswith(message.content)
        assert (message.thinking or "") in turn.text
    encoded = encode(Conversation(turns, 1), tokenizer, max_length=10_000)
    for message, row in zip(expected[-len(encoded) :], encoded, strict=True):
        trained = row.labels[row.labels != IGNORED].tolist()
        assert message.content in str(tokenizer.decode(trained, clean_up_tokenization_spaces=False))


INLINE = (user("Hi"), assistant("<think>\nGreet.\n</think>\n\nGood day"))


@pytest.mark.parametrize(
    ("template", "turns", "thinking", "expected"),
    [
        (THINKS, INLINE, "train", "[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]"),
        (PLAIN, INLINE, "train", "[[<think>\nGreet.\n</think>\n\nGood day<|im_end|>]]"),
        (THINKS, INLINE, "drop", "[[Good day<|im_end|>]]"),
        (PLAIN, TWO_THOUGHTS[:2], "drop", "[[Good day<|im_end|>]]"),
        (THINKS, TWO_TURNS[:2], "reject", "[[Good day<|im_end|>]]"),
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
