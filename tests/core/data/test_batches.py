"""Padding and counts: nothing is lost."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from core.data import Conversation
from core.data.batches import collate
from core.data.encoded import IGNORED, Encoded
from core.data.preview import masked_sample
from core.data.template import encode_all
from core.errors import TrainingFailed
from core.lm.chat import PLAIN_TEMPLATE
from core.schemas.data import Message

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


def encoded(ids: list[int], labels: list[int]) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32), 1, False)


def conversation(prompt: str, answer: str, line: int = 1) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)


def test_collate_pads_on_the_right() -> None:
    batch = collate([encoded([5, 6, 7], [IGNORED, 6, 7]), encoded([8], [8])], pad_id=9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert {tensor.dtype for tensor in (batch.input_ids, batch.attention_mask, batch.labels)} == {torch.int64}
    assert batch.to(torch.device("meta")).labels.device.type == "meta"


def test_encode_all_counts(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(PLAIN_TEMPLATE)
    rows = [conversation("a", "b", 1), conversation("long " * 60, "b", 2), conversation("a", "long " * 60, 3)]
    dataset = encode_all(iter(rows), tokenizer, max_length=60)
    assert [row.line for row in dataset.rows] == [1, 3]
    assert (dataset.dropped, [row.cut_tokens > 0 for row in dataset.rows]) == (1, [False, True])
    assert [row.trained_tokens for row in dataset.rows] == [int((row.labels != IGNORED).sum()) for row in dataset.rows]
    assert len(dataset.rows[1].input_ids) == 60
    assert all(0 < row.trained_tokens < len(row.input_ids) for row in dataset.rows)


@pytest.mark.parametrize("rows", [[], [conversation("long " * 60, "b")]])
def test_nothing_left_to_train_on(make_tokenizer: MakeTokenizer, rows: list[Conversation]) -> None:
    with pytest.raises(TrainingFailed, match=r"of 1 rows|of 0 rows") as caught:
        encode_all(rows, make_tokenizer(PLAIN_TEMPLATE), max_length=40)
    assert caught.value.code == "no_trainable_rows"
    assert caught.value.param == "training.max_length"


def test_masked_sample_keeps_characters_whole(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(PLAIN_TEMPLATE)
    row = encode_all([conversation("é🙂 ,", "中文 .")], tokenizer, max_length=100).rows[0]
    assert masked_sample(row, tokenizer) == "### User:\né🙂 ,\n\n### Assistant:\n[[中文 .</s>]]\n"


def test_trained_tokens_are_those_that_something_stands_before() -> None:
    batch = collate([encoded([5, 6, 7], [5, IGNORED, 7]), encoded([8], [8])], pad_id=9)
    assert batch.trained_tokens == 1
