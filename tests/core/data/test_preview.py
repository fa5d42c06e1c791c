"""The preview of rows: every token with its text and its mark, counts, and rows that cannot be trained on."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from core.data import Conversation, preview
from core.data.encoded import IGNORED
from core.data.preview import PreviewedRows, preview_rows, show_tokens
from core.data.template import RowEncoder, encode
from core.lm.chat import PLAIN_TEMPLATE
from core.schemas.data import Message
from tests.core.data.conftest import spaced

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


def conversation(line: int, prompt: str, answer: str) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)


def previewed(
    tokenizer: PreTrainedTokenizerFast,
    conversations: list[Conversation],
    *,
    rows: int = 5,
    line: int = 1,
    max_length: int = 1000,
) -> PreviewedRows:
    encoder = RowEncoder(tokenizer, max_length=max_length)
    return preview_rows(conversations, encoder, tokenizer, rows=rows, line=line)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("é🙂 ,", "中文 .🦩"),
        ("two\n\nlines", "    return a + b\n"),
        ("a  b", "\ufffd, which text may contain, and \ufffd"),
    ],
)
def test_the_texts_of_tokens_make_up_the_row(make_tokenizer: MakeTokenizer, prompt: str, answer: str) -> None:
    tokenizer = make_tokenizer(PLAIN_TEMPLATE)
    (row,) = encode(conversation(1, prompt, answer), tokenizer, max_length=1000)
    tokens = show_tokens(row, tokenizer)
    assert [token.id for token in tokens] == row.input_ids.tolist()
    assert [token.trained for token in tokens] == (row.labels != IGNORED).tolist()
    assert "".join(token.text for token in tokens) == f"### User:\n{prompt}\n\n### Assistant:\n{answer}</s>\n"
    assert "".join(token.text for token in tokens if token.trained) == f"{answer}</s>"


@pytest.mark.parametrize("answer", ["    return a", "a  b \n", "x"])
def test_a_tokenizer_that_adds_spaces_is_shown_as_it_reads(answer: str) -> None:
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer = spaced(turns + "{% if add_generation_prompt %}[assistant]{% endif %}")
    (row,) = encode(conversation(1, "Hi  there", answer), tokenizer, max_length=1000)
    text = "".join(token.text for token in show_tokens(row, tokenizer))
    assert text == f"[user]Hi  there</s> [assistant]{answer}</s>"  # with the space that the tokenizer adds
    assert "".join(token.text for token in show_tokens(row, tokenizer) if token.trained) == f"{answer}</s>"


def test_a_character_of_several_tokens_is_shown_with_the_last(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(PLAIN_TEMPLATE)
    (row,) = encode(conversation(1, "x", "🦩"), tokenizer, max_length=1000)
    texts = [token.text for token in show_tokens(row, tokenizer) if token.trained]
    assert texts[-2:] == ["🦩", "</s>"]
    assert set(texts[:-2]) <= {""}
    cut = encode(conversation(1, "x", "🦩"), tokenizer, max_length=len(row.input_ids) - 3)[0]
    assert show_tokens(cut, tokenizer)[-1].text in {"", "\ufffd"}


def test_rows_are_shown_from_the_line_on_and_all_are_counted(make_tokenizer: MakeTokenizer) -> None:
    found = previewed(
        make_tokenizer(PLAIN_TEMPLATE), [conversation(n, f"say {n}", "one two") for n in range(1, 9)], rows=2, line=4
    )
    assert [row.line for row in found.shown] == [4, 5]
    counts = found.counts
    assert (counts.rows, counts.training_rows, counts.all_rows) == (8, 8, True)
    assert counts.tokens == sum(len(row.input_ids) for row in found.encoded)
    assert counts.trained_tokens == 8 * found.shown[0].trained_tokens
    assert counts.longest == max(len(row.input_ids) for row in found.encoded)
    assert [row.line for row in found.originals] == list(range(1, 9))


def test_cut_dropped_and_rejected_rows_are_told_apart(make_tokenizer: MakeTokenizer) -> None:
    rows = [
        conversation(1, "fits", "yes"),
        conversation(2, "cut", "one two " * 30),
        conversation(3, "long " * 60, "never reached"),
        conversation(4, "has </s> inside", "no"),
    ]
    found = previewed(make_tokenizer(PLAIN_TEMPLATE), rows, max_length=40)
    fits, cut, dropped = found.shown
    assert (fits.cut_tokens, fits.cut_trained_tokens) == (0, 0)
    assert cut.trained_tokens > 0
    assert cut.cut_tokens >= cut.cut_trained_tokens > 0
    assert len(cut.tokens) == 40
    assert dropped.trained_tokens == 0
    assert dropped.cut_trained_tokens > 0
    assert [row.line for row in found.rejected] == [4]
    assert "</s>" in found.rejected[0].message
    counts = found.counts
    assert (counts.rows, counts.training_rows) == (4, 2)
    assert (counts.cut_rows, counts.dropped_rows, counts.rejected_rows) == (1, 1, 1)
    assert counts.cut_trained_tokens == cut.cut_trained_tokens + dropped.cut_trained_tokens
    assert counts.longest == 40 + cut.cut_tokens


def test_of_a_large_file_the_beginning_is_counted_and_any_line_is_shown(
    make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "MAX_COUNTED_ROWS", 3)
    rows = [conversation(n, f"say {n}", "one") for n in range(1, 11)]
    tokenizer = make_tokenizer(PLAIN_TEMPLATE)
    first = previewed(tokenizer, rows, rows=1)
    assert ([row.line for row in first.shown], first.counts.rows, first.counts.all_rows) == ([1], 3, False)
    late = previewed(tokenizer, rows, rows=2, line=8)
    assert ([row.line for row in late.shown], late.counts.rows, late.counts.all_rows) == ([8, 9], 3, False)
    exact = previewed(tokenizer, rows[:3])
    assert exact.counts.all_rows
    beyond = previewed(tokenizer, rows, line=99)
    assert not beyond.shown


def test_long_rows_end_the_list_early(make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MAX_SHOWN_TOKENS", 50)
    rows = [conversation(n, "say it", "one two " * 20) for n in range(1, 9)]
    found = previewed(make_tokenizer(PLAIN_TEMPLATE), rows, rows=8)
    assert 1 <= len(found.shown) < 8
    assert sum(len(row.tokens) for row in found.shown[:-1]) < 50
    assert found.counts.rows == 8


def test_only_the_first_rejected_rows_are_named(make_tokenizer: MakeTokenizer) -> None:
    found = previewed(make_tokenizer(PLAIN_TEMPLATE), [conversation(n, "</s>", "x") for n in range(1, 31)])
    assert len(found.rejected) == preview.MAX_REJECTED
    assert found.counts.rejected_rows == 30
    assert not found.shown
    assert found.counts.longest == 0
