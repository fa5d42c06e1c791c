"""Multiple choice: the answer is the letter with the highest likelihood as the beginning of the model's turn.

This is the measure of MMLU (Hendrycks et al. 2021), with the chat template.

Covers: the wording of a question, letters of one or several tokens, batches. No answer is generated, and there are no
solved examples. The thinking of a model that thinks is left empty. Not here: item benchmarks (core.data.benchmarks),
answers in text (core.quality.extract).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from core.data.benchmarks import LETTERS, Question
from core.lm.answer_start import find_answer_start
from core.lm.load import BaseModel
from core.lm.logits import logits_at
from core.lm.packing import max_batch_tokens, pack_by_length
from core.lm.prompts import pad, render
from core.quality.answers import AnsweredRow, TaskScores, score_rate
from core.schemas.data import Message
from core.schemas.progress import OnProgress

_BATCH_ROWS = 64
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class _Input:
    """One input row, and the spellings that are scored at its end: those that share all tokens but the last."""

    question: int
    prompt: tuple[int, ...]
    shared: Tokens
    spellings: list[tuple[int, Tokens]] = field(default_factory=list)
    """Number of the letter, and its tokens."""

    @property
    def row(self) -> Tokens:
        return self.prompt + self.shared


def score_multiple_choice(
    base: BaseModel,
    model: nn.Module,
    questions: Sequence[Question],
    *,
    suite: str,
    run: str,
    on_progress: OnProgress,
    system_prompt: str | None = None,
) -> TaskScores:
    """Compute the share of questions whose correct letter is the most likely one, with its 95 % Wilson interval.

    Questions that do not fit into the model's context are undecided. Of equally likely letters, which occur in
    bfloat16, the first one is the answer.

    Raises:
        InvalidInput: as `core.lm.prompts.render` does.
    """
    scores = letter_scores(base, model, questions, on_progress=on_progress, system_prompt=system_prompt)
    chosen = [letters.index(max(letters)) if letters else None for letters in scores]
    pairs = [(best, question.answer) for best, question in zip(chosen, questions, strict=True)]
    rows = [AnsweredRow(None if best is None else LETTERS[best], LETTERS[correct]) for best, correct in pairs]
    values = [None if best is None else best == correct for best, correct in pairs]
    return score_rate(run, suite, "accuracy", rows, values)


@torch.inference_mode()
def letter_scores(
    base: BaseModel,
    model: nn.Module,
    questions: Sequence[Question],
    *,
    on_progress: OnProgress,
    system_prompt: str | None = None,
) -> list[tuple[float, ...]]:
    """Log-likelihood in nats of each letter of each question as the beginning of the answer; empty if the question does
    not fit into the context.

    Takes one forward pass per question if letters are single tokens, in batches.
    """
    letters = spellings(base.tokenizer, max((len(question.choices) for question in questions), default=0))
    inputs: list[_Input] = []
    conversations = [_messages(question, system_prompt) for question in questions]
    start = find_answer_start(base, model, conversations)
    for number, (question, messages) in enumerate(zip(questions, conversations, strict=True)):
        prompt = tuple(start.append(render(base.tokenizer, messages)))
        inputs += _inputs(number, prompt, question, letters)
    too_long = {item.question for item in inputs if len(item.row) >= base.context}
    inputs = [item for item in inputs if item.question not in too_long]
    scores = [torch.full((len(question.choices),), -torch.inf, dtype=torch.float64) for question in questions]
    done = 0
    for indices in pack_by_length(
        [len(item.row) for item in inputs],
        max_rows=base.limit_batch(_BATCH_ROWS, len(inputs)),
        max_tokens=max_batch_tokens(base),
    ):
        on_progress(len(questions) * done // len(inputs), len(questions))
        _add_scores(base, model, [inputs[index] for index in indices], scores)
        done += len(indices)
    on_progress(len(questions), len(questions))
    return [() if number in too_long else tuple(each.tolist()) for number, each in enumerate(scores)]


def spellings(tokenizer: PreTrainedTokenizerBase, count: int) -> list[tuple[Tokens, ...]]:
    """Token spellings of each of the first `count` letters: with and without a space in front, if every letter is then
    one token; otherwise the tokens of the bare letter."""

    def encode(before: str) -> list[Tokens]:
        return [tuple(tokenizer(before + letter, add_special_tokens=False)["input_ids"]) for letter in LETTERS[:count]]

    bare, spaced = encode(""), encode(" ")
    single = [encoded for encoded in (bare, spaced) if all(len(tokens) == 1 for tokens in encoded)]
    return [tuple(dict.fromkeys(tokens)) for tokens in zip(*(single or [bare]), strict=True)]


def _messages(question: Question, system_prompt: str | None) -> list[Message]:
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False))
    text = f"{question.question}\n\n{choices}\n\nAnswer with the letter of the right choice."
    system = [Message(role="system", content=system_prompt)] if system_prompt else []
    return [*system, Message(role="user", content=text)]


def _inputs(number: int, prompt: Tokens, question: Question, letters: Sequence[tuple[Tokens, ...]]) -> list[_Input]:
    by_prefix: dict[Tokens, _Input] = {}
    for letter in range(len(question.choices)):
        for tokens in letters[letter]:
            item = by_prefix.setdefault(tokens[:-1], _Input(number, prompt, tokens[:-1]))
            item.spellings.append((letter, tokens))
    return list(by_prefix.values())


def _add_scores(base: BaseModel, model: nn.Module, inputs: Sequence[_Input], scores: Sequence[torch.Tensor]) -> None:
    """Run the model, and add the probability of each spelling to that of its letter."""
    ids, mask = pad([item.row for item in inputs], base.pad_id, side="right")
    answers = [range(len(item.prompt) - 1, len(item.row)) for item in inputs]
    positions = [(row, place) for row, answer in enumerate(answers) for place in answer]
    logits = logits_at(model, ids.to(base.device), mask.to(base.device), torch.tensor(positions, device=base.device))
    for item, own in zip(inputs, logits.split([len(answer) for answer in answers]), strict=True):
        log_probs = own.float().log_softmax(-1)
        tokens = torch.tensor([tokens for _, tokens in item.spellings], device=log_probs.device)
        totals = log_probs.gather(1, tokens.T).sum(0).double().cpu()
        letters = scores[item.question]
        for (letter, _), total in zip(item.spellings, totals, strict=True):
            letters[letter] = torch.logaddexp(letters[letter], total)
