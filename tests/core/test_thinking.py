"""Thinking and answers are told apart in every format, and ordinary answers stay as they are."""

import pytest

from core.thinking import (
    ends_closed,
    find_opening,
    may_open,
    opening_at_end,
    split_thinking,
    write_empty,
)

THOUGHT = "The user asks for harm. I should decline."
ANSWER = "I'm sorry, but I can't help with that."
PAIRS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
]
CHANNELS = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}"


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
@pytest.mark.parametrize("breaks", ["", "\n", "\n\n"])
def test_the_answer_follows_the_thinking(opening: str, closing: str, breaks: str) -> None:
    split = split_thinking(f"{opening}\n{THOUGHT}\n{closing}{breaks}{ANSWER}")
    assert (split.thinking, split.answer, split.cut) == (THOUGHT, ANSWER, False)


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_text_that_ends_inside_its_thinking_is_cut(opening: str, closing: str) -> None:
    split = split_thinking(f"\n{opening}{THOUGHT}")
    assert (split.thinking, split.answer, split.cut) == (THOUGHT, "", True)


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
@pytest.mark.parametrize("opened", [True, None])
def test_a_prompt_may_have_opened_the_thinking(opening: str, closing: str, opened: bool | None) -> None:
    split = split_thinking(f"{THOUGHT}\n{closing}\n\n{ANSWER}", opened=opened)
    assert (split.thinking, split.answer, split.cut) == (THOUGHT, ANSWER, False)


def test_without_any_mark_only_the_prompt_shows_that_a_text_is_thinking() -> None:
    assert split_thinking(THOUGHT).answer == THOUGHT
    assert split_thinking(THOUGHT, opened=False).answer == THOUGHT
    assert split_thinking(THOUGHT, opened=True).cut


@pytest.mark.parametrize("opened", [True, False])
def test_a_complete_text_is_an_answer_if_its_thinking_is_never_closed(opened: bool) -> None:
    text = THOUGHT if opened else f"<think>{THOUGHT}"
    split = split_thinking(text, opened=opened, ended=True)
    assert (split.thinking, split.answer, split.cut) == (None, THOUGHT, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Models write <think> before they answer.",
        "Use `<think>` and `</think>` around the reasoning.",
        "Wrap it: <think> your thoughts </think>, then the answer.",
        "Close the block with `</think>`.",
        "analysis of the poem: it has two stanzas.",
        "[THINKING] is not a mark.",
        "<b>bold</b> text",
        "  leading spaces and a | > sign",
    ],
)
def test_an_ordinary_answer_stays_as_it_is(text: str) -> None:
    split = split_thinking(text)
    assert (split.thinking, split.answer, split.rest, split.cut) == (None, text, text, False)


def test_a_closing_mark_counts_only_without_an_opening_if_the_prompt_did_not_open_the_thinking() -> None:
    assert split_thinking(f"{THOUGHT}</think>{ANSWER}", opened=False).thinking is None


def test_the_first_closing_mark_that_is_not_quoted_ends_the_thinking() -> None:
    split = split_thinking(f'<think>He wants "</think>" in it, and says "no."</think>{ANSWER} </think>')
    assert split.answer == f"{ANSWER} </think>"


def test_several_blocks_of_thinking_are_all_thinking() -> None:
    split = split_thinking(f"<think>\n\n</think>\n\n<think>{THOUGHT}</think>\n\n{ANSWER}")
    assert (split.thinking, split.answer) == (THOUGHT, ANSWER)
    assert split_thinking("<think></think>\n<think>once more").cut


def test_empty_thinking_is_thinking() -> None:
    split = split_thinking(f"<think>\n\n</think>\n\n{ANSWER}")
    assert (split.thinking, split.answer) == ("", ANSWER)


def test_many_blocks_are_split_without_recursion() -> None:
    assert split_thinking("<think></think>" * 3000 + ANSWER).answer == ANSWER


def test_the_rest_is_exact_to_the_character() -> None:
    assert split_thinking("<think>a</think>\n\n\n  <answer> b</answer>\n").rest == "\n  <answer> b</answer>\n"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ("<|begin_of_solution|>\n", "\n<|end_of_solution|>"),
        ("<response>", "</response>"),
        ("<answer>", "</answer>\n"),
    ],
)
def test_marks_around_an_answer_are_no_part_of_it(start: str, end: str) -> None:
    assert split_thinking(f"<think>{THOUGHT}</think>{start}{ANSWER}{end}").answer == ANSWER
    assert split_thinking(f"{start}{ANSWER}{end}").answer == f"{start}{ANSWER}{end}"


@pytest.mark.parametrize("end", ["<|end|>", "<|return|>", "<|start|>"])
def test_text_behind_the_final_message_is_no_part_of_the_answer(end: str) -> None:
    split = split_thinking(f"<|channel|>final<|message|>{ANSWER}{end}Here is how.")
    assert (split.answer, split.thinking) == (ANSWER, "Here is how.")


@pytest.mark.parametrize("before", ["", "<|start|>assistant"])
@pytest.mark.parametrize("after", ["", "<|return|>"])
def test_the_final_channel_is_the_answer(before: str, after: str) -> None:
    split = split_thinking(before + CHANNELS.format(THOUGHT, ANSWER) + after)
    assert (split.answer, split.cut) == (ANSWER, False)
    assert split.thinking is not None
    assert THOUGHT in split.thinking


def test_other_channels_are_no_answer() -> None:
    analysis = f"<|channel|>analysis<|message|>{THOUGHT}"
    commentary = f"{analysis}<|end|><|start|>assistant<|channel|>commentary<|message|>A plan."
    assert split_thinking(analysis).cut
    assert split_thinking(commentary).cut
    assert split_thinking(f"{commentary}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}").answer == ANSWER
    assert not split_thinking(analysis, ended=True).cut


def test_channels_are_recognized_without_the_tokens_around_their_names() -> None:
    assert split_thinking(f"analysisWe must refuse.assistantfinal{ANSWER}").answer == ANSWER
    assert split_thinking("analysisWe must").cut


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_prompt_opens_the_thinking_only_at_its_end(opening: str, closing: str) -> None:
    assert opening_at_end(f"assistant\n{opening}\n") == opening
    assert opening_at_end(f"assistant\n{opening}\n\n{closing}\n\n") == ""
    assert opening_at_end(f"user\n{opening}\nassistant\n") == ""
    assert may_open(f"... '{opening}\n' ...")
    assert ends_closed(f"{opening}\n\n{closing}\n\n")
    assert not ends_closed(f"{closing} Hello")


def test_a_text_shows_what_opens_it() -> None:
    assert find_opening("\n<think>\nOkay") == "<think>"
    assert find_opening("<|channel|>analysis") == "<|channel|>"
    assert find_opening("Sure, <think>") == ""


def test_empty_thinking_leads_to_the_answer() -> None:
    assert write_empty("<think>", opened=False) == "<think>\n\n</think>\n\n"
    assert write_empty("[THINK]", opened=True) == "\n[/THINK]\n\n"
    assert write_empty("<|channel|>", opened=False) == "<|channel|>final<|message|>"
    assert split_thinking(write_empty("<think>", opened=False) + ANSWER).answer == ANSWER
