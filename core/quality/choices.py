"""Multiple choice: the model picks the letter that it finds most likely as the beginning of its answer, as MMLU is
measured (Hendrycks et al. 2021), but asked as a chat model is.

Covers: the words of a question, letters of one token and of several, batches. Nothing is generated and there are no
solved examples. Not here: reading benchmarks (core.data.benchmarks), answers in words (core.quality.extract).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from core.data.benchmarks import LETTERS, Question
from core.lm.load import BaseModel
from core.lm.packing import max_batch_tokens, pack_by_length
from core.lm.prompts import pad, render
from core.quality.answers import Scored
from core.schemas.data import Message
from core.schemas.evaluation import Figure, TaskAnswer
from core.schemas.progress import OnProgress
from core.stats import wilson

_BATCH_ROWS = 64
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class _Reading:
    """One row for the model, and the spellings whose likelihood is read at its end: those that share all tokens but
    the last."""

    question: int
    prompt: tuple[int, ...]
    shared: Tokens
    spellings: list[tuple[int, Tokens]] = field(default_factory=list)
    """Which letter, and its tokens."""

    @property
    def row(self) -> Tokens:
        return self.prompt + self.shared


def multiple_choice(
    base: BaseModel,
    model: nn.Module,
    questions: Sequence[Question],
    *,
    suite: str,
    run: str,
    on_progress: OnProgress,
    system_prompt: str | None = None,
) -> Scored:
    """Share of questions whose right letter is the most likely one, with its 95 % Wilson interval.

    Questions that do not fit in the model's context are undecided. Of letters that are equally likely, as they may be
    in bfloat16, the first is chosen.

    Raises:
        InvalidInput: as `core.lm.prompts.render` does.
    """
    scores = letter_scores(base, model, questions, on_progress=on_progress, system_prompt=system_prompt)
    answers: list[TaskAnswer] = []
    for index, (question, found) in enumerate(zip(questions, scores, strict=True)):
        if found:
            best = found.index(max(found))
            answers.append(
                TaskAnswer(
                    run=run,
                    suite=suite,
                    metric="accuracy",
                    row=index,
                    answer=LETTERS[best],
                    reference=LETTERS[question.answer],
                    value=float(best == question.answer),
                )
            )
    value, low, high = wilson(sum(answer.value == 1 for answer in answers), len(answers))
    figure = Figure(
        run=run,
        suite=suite,
        metric="accuracy",
        judge="none",
        value=value,
        n=len(answers),
        undecided=len(questions) - len(answers),
        low=low,
        high=high,
    )
    return (figure,), tuple(answers)


@torch.inference_mode()
def letter_scores(
    base: BaseModel,
    model: nn.Module,
    questions: Sequence[Question],
    *,
    on_progress: OnProgress,
    system_prompt: str | None = None,
) -> list[tuple[float, ...]]:
    """Log-likelihood of each letter of each question as the beginning of the answer, nats; empty where the question
    does not fit in the context.

    One forward pass a question where letters are single tokens, all over batches.
    """
    ways = spellings(base.tokenizer, max((len(question.choices) for question in questions), default=0))
    readings = [
        reading
        for index, question in enumerate(questions)
        for reading in _readings(index, tuple(render(base.tokenizer, _asked(question, system_prompt))), question, ways)
    ]
    too_long = {reading.question for reading in readings if len(reading.row) >= base.context}
    readings = [reading for reading in readings if reading.question not in too_long]
    found = [torch.full((len(question.choices),), -torch.inf, dtype=torch.float64) for question in questions]
    done = 0
    for chosen in pack_by_length(
        [len(reading.row) for reading in readings], max_rows=_BATCH_ROWS, max_tokens=max_batch_tokens(base)
    ):
        on_progress(len(questions) * done // len(readings), len(questions))
        _read(base, model, [readings[index] for index in chosen], found)
        done += len(chosen)
    on_progress(len(questions), len(questions))
    return [() if index in too_long else tuple(scores.tolist()) for index, scores in enumerate(found)]


def spellings(tokenizer: PreTrainedTokenizerBase, count: int) -> list[tuple[Tokens, ...]]:
    """The ways in which tokens write each of the first letters: with and without a space before, where every letter is
    one token so; else as the tokenizer writes the letter alone."""

    def write(before: str) -> list[Tokens]:
        return [tuple(tokenizer(before + letter, add_special_tokens=False)["input_ids"]) for letter in LETTERS[:count]]

    bare, spaced = write(""), write(" ")
    single = [way for way in (bare, spaced) if all(len(tokens) == 1 for tokens in way)]
    return [tuple(dict.fromkeys(tokens)) for tokens in zip(*(single or [bare]), strict=True)]


def _asked(question: Question, system_prompt: str | None) -> list[Message]:
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False))
    text = f"{question.question}\n\n{choices}\n\nAnswer with the letter of the right choice."
    system = [Message(role="system", content=system_prompt)] if system_prompt else []
    return [*system, Message(role="user", content=text)]


def _readings(index: int, prompt: Tokens, question: Question, ways: Sequence[tuple[Tokens, ...]]) -> list[_Reading]:
    found: dict[Tokens, _Reading] = {}
    for letter in range(len(question.choices)):
        for tokens in ways[letter]:
            reading = found.setdefault(tokens[:-1], _Reading(index, prompt, tokens[:-1]))
            reading.spellings.append((letter, tokens))
    return list(found.values())


def _read(base: BaseModel, model: nn.Module, readings: Sequence[_Reading], found: Sequence[torch.Tensor]) -> None:
    """Ask the model, and add the probability of each spelling to its letter's."""
    ids, mask = pad([reading.row for reading in readings], base.pad_id, side="right")
    logits = model(input_ids=ids.to(base.device), attention_mask=mask.to(base.device)).logits
    for reading, row in zip(readings, logits, strict=True):
        start, end = len(reading.prompt) - 1, len(reading.row)
        each = row[start:end].float().log_softmax(-1)
        tokens = torch.tensor([tokens for _, tokens in reading.spellings], device=each.device)
        total = each.gather(1, tokens.T).sum(0).double().cpu()
        scores = found[reading.question]
        for (letter, _), score in zip(reading.spellings, total, strict=True):
            scores[letter] = torch.logaddexp(scores[letter], score)
