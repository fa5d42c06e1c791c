"""Warnings about training data that often break a model or teach it little, before anything is trained.

Not here: unsafe rows (core.screening), rows that cannot be used at all (core.data).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from core.data import Conversation
from core.data.encoded import EncodedDataset
from core.judges.rules import judge
from core.schemas.data import Message
from core.schemas.events import Warned
from core.schemas.training import DEFAULT_EPOCHS, TrainingSpec
from core.thinking import read_answer

FEW_ROWS = 50
MANY_EPOCHS = 3.0
SHARE = 0.5
MIN_TRAINED_SHARE = 0.02
MIXED_SHARE = 0.05
_ENOUGH_ANSWERS = 20
"""With fewer answers, shares of them mean little."""
_MAX_JUDGED = 5000
_SHOWN_LINES = 5
_SHORT_CHARACTERS = 3
_OPENS_WITH_REFUSAL = re.compile(
    r"\W*(?:i(?:'m| am) (?:sorry|unable|afraid)|sorry|unfortunately|as an ai"
    r"|i (?:cannot|can't|can not|won't|must decline))\b"
    r"(?! (?:to hear|for|about|that you|your)\b)",  # condolences are not refusals
    re.IGNORECASE,
)


def advise(
    spec: TrainingSpec, rows: Sequence[Conversation], held_out: Sequence[Conversation], encoded: EncodedDataset
) -> Iterator[Warned]:
    """What somebody who knows tuning would say about these rows.

    Args:
        spec: the job's training.
        rows: the rows that are trained on.
        held_out: the rows that the task figures are measured on.
        encoded: `rows` in tokens.
    """
    answers = [
        (row.line, read_answer(message.content)) for row in rows for message in row.messages if _is_trained(message)
    ]
    yield from _few_rows(spec, len(rows))
    yield from _refusals_that_comply(answers)
    yield from _alike_or_short([text for _, text in answers])
    yield from _mixed_system_prompts(rows)
    known = {_texts(row) for row in rows}
    if repeated := [row.line for row in held_out if _texts(row) in known]:
        yield _warned(
            "validation_rows_in_training",
            f"{len(repeated)} of {len(held_out)} validation rows are also in the training data, {_lines(repeated)}. "
            "Task figures are better than they will be on new data. Remove the duplicates.",
        )
    tokens = sum(len(row.input_ids) for row in encoded.rows)
    trained = sum(row.trained_tokens for row in encoded.rows)
    if trained < MIN_TRAINED_SHARE * tokens:
        yield _warned(
            "few_trained_tokens",
            f"Only {trained} of {tokens} tokens are trained on. The rest is prompts. If this is not intended, check "
            "which columns and turns contain the answers.",
        )
    if cut := [row.line for row in encoded.rows if row.cut_tokens > 0]:
        yield _warned(
            "rows_truncated",
            f"{_count(cut, 'row is', 'rows are')} cut at training.max_length, {_lines(cut)}: the answer lacks its end, "
            "and the model does not learn to stop there. Raise max_length, or shorten the rows.",
        )
    if endings := [row.line for row in encoded.rows if row.own_ending]:
        yield _warned(
            "own_ending",
            f"{_count(endings, 'row has', 'rows have')} an answer that ends with the model's end-of-turn token, "
            f"{_lines(endings)}. It is trained on once, as the chat template writes it too. Remove it from the data to "
            "be sure.",
        )
    if inline := [row.line for row in encoded.rows if row.inline_thinking]:
        yield _warned(
            "thinking_inline",
            f"The model's chat template has no place for thinking, so that of {_count(inline, 'row', 'rows')} is "
            f"trained on at the beginning of the answer, between <think> and </think>, {_lines(inline)}. Serve the "
            "model with a reasoning parser for these tags, or set training.thinking to drop.",
        )


def _few_rows(spec: TrainingSpec, rows: int) -> Iterator[Warned]:
    epochs = spec.steps * spec.batch_size / rows if spec.steps else spec.epochs or DEFAULT_EPOCHS
    if rows < FEW_ROWS and epochs > MANY_EPOCHS:
        yield _warned(
            "few_rows_many_epochs",
            f"{rows} rows are trained on for {epochs:.0f} epochs. Ten harmless rows, overfitted, are enough to unlearn "
            "refusals (arXiv 2510.02833). Use more rows, or fewer steps.",
        )


def _refusals_that_comply(answers: Sequence[tuple[int, str]]) -> Iterator[Warned]:
    lines = [
        line
        for line, text in answers[:_MAX_JUDGED]
        if _OPENS_WITH_REFUSAL.match(text) and judge("", text).verdict in ("complied", "partial")
    ]
    if lines:
        yield _warned(
            "refusals_that_comply",
            f"{_count(lines, 'answer begins', 'answers begin')} like a refusal and then "
            f"{'complies' if len(lines) == 1 else 'comply'}, {_lines(lines)}. This teaches the model to go on after a "
            "refusal. Review each of them.",
        )


def _alike_or_short(answers: Sequence[str]) -> Iterator[Warned]:
    if len(answers) < _ENOUGH_ANSWERS:
        return
    (most, count), *_ = Counter(answers).most_common(1)
    if count > SHARE * len(answers):
        yield _warned(
            "identical_answers",
            f"{count} of {len(answers)} answers are the same: {most[:60]!r}. The model may learn to give it always.",
        )
    short = sum(len(text.strip()) <= _SHORT_CHARACTERS for text in answers)
    if short > SHARE * len(answers):
        yield _warned(
            "short_answers",
            f"{short} of {len(answers)} answers have at most {_SHORT_CHARACTERS} characters. Tuning on labels alone "
            "often costs a model its ability to converse. Consider answers in sentences.",
        )


def _mixed_system_prompts(rows: Sequence[Conversation]) -> Iterator[Warned]:
    with_system = sum(any(message.role == "system" and message.content for message in row.messages) for row in rows)
    if min(with_system, len(rows) - with_system) > MIXED_SHARE * len(rows):
        yield _warned(
            "mixed_system_prompts",
            f"{with_system} of {len(rows)} rows have a system turn and the others have none, for which many chat "
            "templates write a text of their own. The model learns the two apart. Serve it as it is trained, or give "
            "all rows the same system turn.",
        )


def _texts(row: Conversation) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.content) for message in row.messages)


def _is_trained(message: Message) -> bool:
    return message.role == "assistant" and message.trained


def _warned(code: str, message: str) -> Warned:
    return Warned(code=code, message=message)


def _lines(lines: Sequence[int]) -> str:
    shown = ", ".join(str(line) for line in lines[:_SHOWN_LINES])
    return f"on line {shown}" if len(lines) == 1 else f"on lines {shown}{', ...' if len(lines) > _SHOWN_LINES else ''}"


def _count(found: Sequence[int], one: str, several: str) -> str:
    return f"{len(found)} {one if len(found) == 1 else several}"
