"""`self_distill`: the base model writes the answers of the job's rows in its own words, and these are trained on.

Source: SDFT, Yang et al. 2024, "Self-Distillation Bridges Distribution Gap in Language Model Fine-Tuning" (arXiv
2402.13669). Answers that the model could have written itself move its weights, and with them its alignment, less.
Covers: which rows are rewritten, the request for it, which rewritten answers are used. A run that resumes rewrites the
rows again: answers are greedy, and batches depend on the rows alone. Not here: generation (core.lm.generate).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from typing_extensions import override

from core.data import Conversation
from core.judges.rules import judge
from core.lm.generate import render_prompts
from core.lm.texts import AnswerTexts
from core.quality.extract import MARK, extract_number, normalize_answer
from core.quality.rouge import split_words
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.interface import RewrittenRows, Safeguard, SafeguardContext
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import SelfDistill
from core.thinking import split_thinking

_SHORT = 5
"""An answer of at most this many words is a final answer as a whole."""

Kept = Literal["unsuitable", "no_room", "empty", "cut_off", "control_token", "refusal", "answer_lost"]
"""Why a row keeps its original answer. `unsuitable`: it has tools or thinking, or no user turn before the answer."""


class OwnWords(Safeguard[SelfDistill]):
    """Replaces the last answer of each row by the base model's own."""

    options_class = SelfDistill

    @override
    def rewrite_rows(
        self, context: SafeguardContext, rows: Sequence[Conversation], on_progress: OnProgress
    ) -> RewrittenRows:
        found = rewrite_answers(
            context.answers, rows, max_new_tokens=self.options.max_new_tokens, on_progress=on_progress
        )
        kept = Counter(each for each in found if isinstance(each, str))
        changed = [row if isinstance(each, str) else each for row, each in zip(rows, found, strict=True)]
        rewritten = len(rows) - kept.total()
        effect = SafeguardEffect(
            safeguard=self.options.name,
            summary=f"{rewritten} of {len(rows)} answers rewritten by the base model",
            counts={"rewritten": rewritten} | {f"kept_{reason}": count for reason, count in sorted(kept.items())},
        )
        return RewrittenRows(changed, effect)


def rewrite_answers(
    written: BaseAnswers, rows: Sequence[Conversation], *, max_new_tokens: int, on_progress: OnProgress
) -> list[Conversation | Kept]:
    """Each row with its last answer in the model's own words, or why it keeps the original."""
    base = written.base
    found: list[Conversation | Kept] = ["unsuitable"] * len(rows)
    places = [place for place, row in enumerate(rows) if _is_suitable(row)]
    requests = [ask_for_rewriting(rows[place].messages) for place in places]
    prompts = render_prompts(base, requests, max_new_tokens=max_new_tokens)
    answers = written.write(
        [prompt or [] for prompt in prompts], max_new_tokens=max_new_tokens, on_progress=on_progress
    )
    texts = AnswerTexts(base, requests, prompts, max_new_tokens=max_new_tokens)
    control = [token.content for token in base.tokenizer.added_tokens_decoder.values() if token.special]
    for index, (place, prompt, answer) in enumerate(zip(places, prompts, answers, strict=True)):
        row = rows[place]
        if prompt is None:
            found[place] = "no_room"
        elif answer and answer[-1] not in base.stop_ids:
            found[place] = "cut_off"
        else:
            text = split_thinking(texts.write(index, answer), opened=False).answer.strip()
            problem = find_problem(row.messages[-2].content, row.messages[-1].content, text, control)
            found[place] = problem or _with_answer(row, text)
    return found


def ask_for_rewriting(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation up to its last answer, whose last user turn also shows that answer and asks for another one."""
    *before, request, reference = messages
    content = (
        f"{request.content}\n\n"
        f"Here is a correct answer, to guide you:\n{reference.content}\n\n"
        "Now answer the request above in your own words. Keep every fact, number and name of that answer, its format "
        "and its final result. Write nothing but the answer."
    )
    return (*before, request.model_copy(update={"content": content}))


def find_problem(request: str, reference: str, rewritten: str, control: Sequence[str] = ()) -> Kept | None:
    """Why a rewritten answer is not used; None if it is. `control` are texts that no row may contain."""
    if not rewritten:
        return "empty"
    if any(token in rewritten for token in control):
        return "control_token"
    if judge(request, rewritten).verdict == "refused" and judge(request, reference).verdict != "refused":
        return "refusal"
    return None if _has_final_answer(reference, rewritten) else "answer_lost"


def _has_final_answer(reference: str, rewritten: str) -> bool:
    """Whether the final answer of the reference, if it has one, is in the rewritten answer, after `####` if it was."""
    if MARK in reference:
        return MARK in rewritten and _after_mark(reference) == _after_mark(rewritten)
    words = split_words(reference)
    if len(words) > _SHORT:
        return True
    number = extract_number(reference)
    if number is not None and number != extract_number(rewritten):
        return False
    if not words:
        return reference.strip() in rewritten
    return f" {' '.join(words)} " in f" {' '.join(split_words(rewritten))} "


def _after_mark(text: str) -> str:
    final = text.rpartition(MARK)[2]
    return extract_number(final) or normalize_answer(final)


def _is_suitable(row: Conversation) -> bool:
    """Whether the last turn of a row is a plain answer to a user, in a conversation without tools and thinking."""
    if row.whole or row.tools or len(row.messages) < 2:
        return False
    request, answer = row.messages[-2:]
    return (
        (request.role, answer.role) == ("user", "assistant")
        and answer.trained
        and not any(_uses_tools(turn) or _thinks(turn) for turn in row.messages)
    )


def _uses_tools(turn: Message) -> bool:
    return turn.role == "tool" or bool(turn.tool_calls)


def _thinks(turn: Message) -> bool:
    if turn.role != "assistant":
        return False
    return bool(turn.thinking) or split_thinking(turn.content, opened=False, ended=True).thinking is not None


def _with_answer(row: Conversation, text: str) -> Conversation:
    *before, answer = row.messages
    return replace(row, messages=(*before, answer.model_copy(update={"content": text})))
