"""What is trained on, for the chat templates that are in use: assistant turns with their terminators, nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import BatchEncoding, PreTrainedTokenizerFast

from core.data import Conversation
from core.data.encoded import IGNORED, Encoded
from core.data.preview import masked_sample
from core.data.template import RowEncoder, encode, end_of_turn
from core.errors import InvalidInput
from core.lm.chat import PLAIN_TEMPLATE
from core.schemas.data import Message

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_WITHOUT_GENERATION_PROMPT = CHATML.split("{% if", maxsplit=1)[0]
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content %}"
    "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
    "{% for m in rest %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' }}"
    "{% if loop.first and system %}{{ '<<SYS>>\n' + system + '\n<</SYS>>\n\n' }}{% endif %}"
    "{{ m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TEXT_ONLY = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
REWRITES_HISTORY = CHATML.replace("m.content }}", "(m.content if loop.last else m.content | upper) }}")

FAMILIES = {
    "chatml": (CHATML, "<|im_end|>", None),
    "llama2": (LLAMA2, "</s>", "<s>"),
    "llama3": (LLAMA3, "<|eot_id|>", "<|begin_of_text|>"),
    "gemma": (GEMMA, "<end_of_turn>", "<bos>"),
    "plain": (PLAIN_TEMPLATE, "</s>", None),
}

SINGLE = (("user", "What is 3 + 4?"), ("assistant", "The answer is 7."))
DOUBLE = (*SINGLE, ("user", "And é🙂?"), ("assistant", "Zwölf 🙂."))
WITH_SYSTEM = (("system", "Be brief."), *DOUBLE)


def conversation(turns: tuple[tuple[str, str], ...]) -> Conversation:
    return Conversation(tuple(Message.model_validate({"role": role, "content": text}) for role, text in turns), 7)


def row(turns: tuple[tuple[str, str], ...], tokenizer: PreTrainedTokenizerFast, max_length: int = 1000) -> Encoded:
    (encoded,) = encode(conversation(turns), tokenizer, max_length=max_length)
    return encoded


def official(tokenizer: PreTrainedTokenizerFast, turns: tuple[tuple[str, str], ...], *, prompt: bool) -> list[int]:
    """The ids as transformers makes them for serving."""
    messages = [{"role": role, "content": text} for role, text in turns]
    encoding = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt)
    assert isinstance(encoding, BatchEncoding)
    return list(encoding["input_ids"])


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, make_tokenizer: MakeTokenizer) -> tuple[str, str, PreTrainedTokenizerFast]:
    template, end, bos = FAMILIES[request.param]
    return request.param, end, make_tokenizer(template, eos=end, bos=bos)


@pytest.mark.parametrize(
    ("name", "turns", "expected"),
    [
        (
            "chatml",
            WITH_SYSTEM,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n"
            "<|im_start|>assistant\n[[The answer is 7.<|im_end|>]]\n<|im_start|>user\nAnd é🙂?<|im_end|>\n"
            "<|im_start|>assistant\n[[Zwölf 🙂.<|im_end|>]]\n",
        ),
        (
            "llama2",
            WITH_SYSTEM,
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is 3 + 4? [/INST][[ The answer is 7. </s>]]"
            "<s>[INST] And é🙂? [/INST][[ Zwölf 🙂. </s>]]",
        ),
        (
            "llama3",
            WITH_SYSTEM,
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWhat is 3 + 4?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[[The answer is 7.<|eot_id|>]]"
            "<|start_header_id|>user<|end_header_id|>\n\nAnd é🙂?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[[Zwölf 🙂.<|eot_id|>]]",
        ),
        (
            "gemma",
            DOUBLE,
            "<bos><start_of_turn>user\nWhat is 3 + 4?<end_of_turn>\n"
            "<start_of_turn>model\n[[The answer is 7.<end_of_turn>]]\n<start_of_turn>user\nAnd é🙂?<end_of_turn>\n"
            "<start_of_turn>model\n[[Zwölf 🙂.<end_of_turn>]]\n",
        ),
        (
            "plain",
            WITH_SYSTEM,
            "### System:\nBe brief.\n\n### User:\nWhat is 3 + 4?\n\n### Assistant:\n[[The answer is 7.</s>]]\n"
            "### User:\nAnd é🙂?\n\n### Assistant:\n[[Zwölf 🙂.</s>]]\n",
        ),
    ],
)
def test_what_is_trained(
    make_tokenizer: MakeTokenizer, name: str, turns: tuple[tuple[str, str], ...], expected: str
) -> None:
    template, end, bos = FAMILIES[name]
    tokenizer = make_tokenizer(template, eos=end, bos=bos)
    encoded = row(turns, tokenizer)
    assert masked_sample(encoded, tokenizer) == expected
    assert not encoded.cut_tokens
    assert encoded.line == 7


def test_ids_are_those_of_the_template_and_labels_lie_on_them(
    family: tuple[str, str, PreTrainedTokenizerFast],
) -> None:
    _, _, tokenizer = family
    encoded = row(DOUBLE, tokenizer)
    assert encoded.input_ids.tolist() == official(tokenizer, DOUBLE, prompt=False)
    trained = encoded.labels != IGNORED
    assert (encoded.labels[trained] == encoded.input_ids[trained]).all()
    assert encoded.trained_tokens == trained.sum()


def test_the_prompt_is_what_serving_sends(family: tuple[str, str, PreTrainedTokenizerFast]) -> None:
    name, _, tokenizer = family
    encoded = row(SINGLE, tokenizer)
    first = (encoded.labels != IGNORED).argmax()
    assert encoded.input_ids[:first].tolist() == official(tokenizer, SINGLE[:1], prompt=True), name


def test_the_terminator_of_every_turn_is_a_label(family: tuple[str, str, PreTrainedTokenizerFast]) -> None:
    _, end, tokenizer = family
    labels = row(DOUBLE, tokenizer).labels
    assert (labels == tokenizer.convert_tokens_to_ids(end)).sum() == 2
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids(end)


def test_an_answer_that_looks_like_the_terminator(family: tuple[str, str, PreTrainedTokenizerFast]) -> None:
    _, end, tokenizer = family
    for answer in (">", "end", "|>", f"a{end}", f"a{end}\n", "assistant", "s", "  spaced \n"):
        encoded = row((("user", "a"), ("assistant", answer)), tokenizer)
        kept = encoded.labels[encoded.labels != IGNORED].tolist()
        assert kept[-1] == tokenizer.convert_tokens_to_ids(end)
        assert kept.count(kept[-1]) == 1
        assert encoded.own_ending == (end in answer)
        text = str(tokenizer.decode(kept, clean_up_tokenization_spaces=False)).removesuffix(end)
        assert answer.split(end)[0] in text


def test_a_control_token_within_a_text_is_rejected(family: tuple[str, str, PreTrainedTokenizerFast]) -> None:
    _, end, tokenizer = family
    for turns in ((("user", f"a{end}b"), ("assistant", "c")), (("user", "a"), ("assistant", f"b{end}c"))):
        assert f"contains the control token {end}" in refusal(turns, tokenizer).message


def test_a_terminator_that_is_not_the_end_of_sequence(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(CHATML, eos="</s>")
    assert masked_sample(row(SINGLE, tokenizer), tokenizer).endswith("[[The answer is 7.<|im_end|>]]\n")
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_where_the_template_writes_no_terminator_one_is_appended(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(TEXT_ONLY)
    samples = [masked_sample(each, tokenizer) for each in encode(conversation(DOUBLE), tokenizer, max_length=1000)]
    assert samples == [
        "user: What is 3 + 4?\nassistant:[[ The answer is 7.</s>]]\n",
        "user: What is 3 + 4?\nassistant: The answer is 7.\nuser: And é🙂?\nassistant:[[ Zwölf 🙂.</s>]]\n",
    ]
    # A token that looks like an end inside the answer does not pass for one.
    inside = (("user", "a"), ("assistant", "b</s>"))
    assert masked_sample(row(inside, tokenizer), tokenizer).endswith("[[ b</s>]]\n")


def test_without_a_generation_prompt_the_header_is_learnt(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(CHATML_WITHOUT_GENERATION_PROMPT, eos="<|im_end|>")
    for answer in ("s", "m_start", "The answer is 7."):
        sample = masked_sample(row((("user", "a"), ("assistant", answer)), tokenizer), tokenizer)
        assert sample.endswith(f"a<|im_end|>\n[[<|im_start|>assistant\n{answer}<|im_end|>]]\n")


plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(plain_text, plain_text, plain_text)
@example("0", "\ue000text\ue001", "\ue000thought\ue001")
@example("0", "\ue000thought\ue001", "\ue000\ue000text\ue001")
def test_any_text(family: tuple[str, str, PreTrainedTokenizerFast], first: str, second: str, question: str) -> None:
    name, end, tokenizer = family
    turns = (("user", question), ("assistant", first), ("user", question), ("assistant", second))
    rows = encode(conversation(turns), tokenizer, max_length=1_000_000)
    trained = [token for each in rows for token in each.labels[each.labels != IGNORED].tolist()]
    decoded = str(tokenizer.decode(trained, clean_up_tokenization_spaces=False))
    assert trained[-1] == tokenizer.convert_tokens_to_ids(end)
    answers = decoded.split(end)[:-1]
    written = " {} " if name == "llama2" else "{}"
    assert answers == [written.format(first), written.format(second)], name


def test_cutting(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(CHATML, eos="<|im_end|>")
    whole = row(DOUBLE, tokenizer)
    length = len(whole.input_ids)
    first = int((whole.labels != IGNORED).argmax())

    exact = row(DOUBLE, tokenizer, length)
    assert not exact.cut_tokens
    cut = row(DOUBLE, tokenizer, length - 1)
    assert (cut.cut_tokens, cut.cut_trained_tokens) == (1, int(whole.labels[-1] != IGNORED))
    assert cut.input_ids.tolist() == whole.input_ids[:-1].tolist()
    assert cut.labels.tolist() == whole.labels[:-1].tolist()

    one_token = row(DOUBLE, tokenizer, first + 1)
    assert one_token.trained_tokens == 1
    none = row(DOUBLE, tokenizer, first)
    assert none.trained_tokens == 0
    assert (none.cut_tokens, none.cut_trained_tokens) == (length - first, whole.trained_tokens)


def test_many_are_encoded_like_one(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(LLAMA2, bos="<s>")
    rows = [conversation((("user", f"Count to {n}."), ("assistant", "one " * (n % 60 + 1)))) for n in range(1, 300)]
    many = list(RowEncoder(tokenizer, max_length=200).encode(rows))
    assert len(many) == len(rows)
    for index in (0, 255, 256, 298):
        (alone,) = encode(rows[index], tokenizer, max_length=200)
        assert many[index].input_ids.tolist() == alone.input_ids.tolist()
        assert many[index].labels.tolist() == alone.labels.tolist()


def refusal(turns: tuple[tuple[str, str], ...], tokenizer: PreTrainedTokenizerFast) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        row(turns, tokenizer)
    assert caught.value.param == "base_model"
    return caught.value


@pytest.mark.parametrize(
    ("template", "turns", "says"),
    [
        (REWRITES_HISTORY, DOUBLE, "it omits or changes turn 1, of the role user"),
        (
            CHATML.replace("{% for m", "{% if messages[2] %}{{ raise_exception('One turn!') }}{% endif %}{% for m"),
            DOUBLE,
            "it reports: One turn!",
        ),
        (CHATML.replace("m.content }}", "m.content | upper }}"), SINGLE, "omits the assistant's turn"),
        (CHATML.replace("m.content }}", "m.content + m.content }}"), SINGLE, "omits or repeats a part"),
        ("{{ messages[0].nothing.at_all }}", SINGLE, "it reports"),
        ("{% if %}", SINGLE, "it reports"),
    ],
)
def test_templates_that_cannot_be_used(
    make_tokenizer: MakeTokenizer, template: str, turns: tuple[tuple[str, str], ...], says: str
) -> None:
    error = refusal(turns, make_tokenizer(template, bos="<bos>"))
    assert error.code == "chat_template_unsupported"
    assert says in error.message
    assert "choose another base model" in error.message


def test_the_refused_row_is_named(make_tokenizer: MakeTokenizer) -> None:
    assert "The row on line 7" in refusal(DOUBLE, make_tokenizer(REWRITES_HISTORY)).message


def test_no_terminator_at_all(make_tokenizer: MakeTokenizer) -> None:
    error = refusal(SINGLE, make_tokenizer(TEXT_ONLY, eos=None))
    assert error.code == "chat_template_unsupported"
    assert "no end-of-sequence token" in error.message


def test_no_template(make_tokenizer: MakeTokenizer) -> None:
    assert refusal(SINGLE, make_tokenizer(None)).code == "no_chat_template"


def test_the_shipped_testbed() -> None:
    folder = Path(__file__).parents[3] / "testbed" / "model"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("the testbed has not been built")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert masked_sample(row(DOUBLE, tokenizer), tokenizer).count("<|end|>]]") == 2
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
