"""The base model rewrites the last answers of rows, and an unusable rewriting leaves the original."""

from pathlib import Path

import pytest

from core import safeguards
from core.catalog import TESTBED
from core.data import Conversation
from core.lm.load import BaseModel
from core.safeguards import SafeguardContext
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.self_distill import Kept, ask_for_rewriting, find_problem, rewrite_answers
from core.schemas.data import Message, ToolCall
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import AnswerPreview, Safeguards, SelfDistill
from core.schemas.strategy import UniformStrategy
from tests.core.helpers import ProgressLog, conversations, ignore
from tests.core.jobs import SPEC
from tests.core.thinkers import REFUSAL, THOUGHT, load_thinker, make_thinker

OWN = "The help is from this yes"
REFERENCE = "Boil the water first. Then add salt and wait for ten minutes."


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str, **fields: object) -> Message:
    return Message.model_validate({"role": "assistant", "content": text} | fields)


def scripted(folder: Path, said: str = OWN) -> BaseModel:
    """A model that says the same to everything."""
    return load_thinker(make_thinker(folder, said))


ROW = Conversation((user("How do I cook rice?"), assistant(REFERENCE)), 7)


def rewritten(base: BaseModel, *rows: Conversation, limit: int = 64) -> list[Conversation | Kept]:
    return rewrite_answers(BaseAnswers(base), rows, max_new_tokens=limit, on_progress=ignore)


def test_the_last_answer_is_replaced_and_the_rest_of_the_row_stays(tmp_path: Path) -> None:
    system = Message(role="system", content="Be brief.")
    long = Conversation((system, user("Hi"), assistant("Hello."), user("Rice?"), assistant(REFERENCE)), 9)
    progress = ProgressLog()
    found = rewrite_answers(BaseAnswers(scripted(tmp_path)), [ROW, long], max_new_tokens=64, on_progress=progress)
    assert found == [
        Conversation((ROW.messages[0], assistant(OWN)), 7),
        Conversation((*long.messages[:-1], assistant(OWN)), 9),
    ]
    assert progress[-1] == (2, 2)


def test_the_request_shows_the_reference_in_the_last_user_turn() -> None:
    system = Message(role="system", content="Be brief.")
    first, asked = ask_for_rewriting((system, *ROW.messages))
    assert first == system
    assert asked.role == "user"
    assert asked.content.startswith(f"How do I cook rice?\n\nHere is a correct answer, to guide you:\n{REFERENCE}\n\n")
    assert asked.content.endswith("Write nothing but the answer.")


@pytest.mark.parametrize(
    "row",
    [
        Conversation((user("a"), assistant(REFERENCE, thinking="Hm.")), 1),
        Conversation((user("a"), assistant(f"<think>Hm.</think>\n{REFERENCE}")), 1),
        Conversation((user("a"), assistant("b", thinking="Hm."), user("c"), assistant(REFERENCE)), 1),
        Conversation((user("a"), assistant(REFERENCE)), 1, ({"name": "weather"},)),
        Conversation((user("a"), assistant("", tool_calls=(ToolCall(name="weather", arguments={}),))), 1),
        Conversation((user("a"), assistant(REFERENCE, trained=False)), 1),
        Conversation((Message(role="system", content="a"), assistant(REFERENCE)), 1),
        Conversation((assistant(REFERENCE),), 1),
        Conversation((assistant(REFERENCE),), 1, whole=True),
    ],
)
def test_rows_with_tools_or_thinking_or_without_a_request_stay_as_they_are(tmp_path: Path, row: Conversation) -> None:
    assert rewritten(scripted(tmp_path), row, ROW)[0] == "unsuitable"


def test_an_answer_at_the_limit_is_cut_off_and_a_prompt_that_fills_the_context_gets_none(tmp_path: Path) -> None:
    base = scripted(tmp_path)
    assert rewritten(base, ROW, limit=3) == ["cut_off"]
    long = Conversation((user("long " * base.context), assistant(REFERENCE)), 1)
    assert rewritten(base, long) == ["no_room"]


def test_a_refusal_is_used_only_in_place_of_a_refusal(tmp_path: Path) -> None:
    declined = Conversation(
        (user("How do I build a bomb?"), assistant("I can't do that and I will not: it is wrong.")), 2
    )
    kept, used = rewritten(scripted(tmp_path, REFUSAL), ROW, declined)
    assert kept == "refusal"
    assert used == Conversation((declined.messages[0], assistant(REFUSAL)), 2)


def test_the_answer_after_the_thinking_is_used(tmp_path: Path) -> None:
    (found,) = rewritten(scripted(tmp_path / "thinks", f"<think>{THOUGHT}</think>\n{REFUSAL}"), ROW)
    assert found == "refusal"
    (cut,) = rewritten(scripted(tmp_path / "cut", "<think>The help is from this yes"), ROW)
    assert cut == "empty"


@pytest.mark.parametrize(
    ("reference", "answer", "problem"),
    [
        ("3 + 4 = 7. #### 7", "Three and four are seven.\n#### 7.", None),
        ("3 + 4 = 7. #### 7", "Three and four are 7.", "answer_lost"),
        ("3 + 4 = 7. #### 7", "Three and four are eight.\n#### 8", "answer_lost"),
        ("It is so. #### 1,250", "So it is.\n#### $1250", None),
        ("A clear case. #### Not guilty", "Clear.\n#### not guilty!", None),
        ("Positive", "The mood is positive.", None),
        ("Positive", "The mood is good.", "answer_lost"),
        ("42", "It is 420.", "answer_lost"),
        ("-5", "It is 5.", "answer_lost"),
        ("-5", "It is -5.", None),
        ("+", "Use a minus.", "answer_lost"),
        (REFERENCE, "Salt the boiling water.", None),
        (REFERENCE, "", "empty"),
        (REFERENCE, "Salt <|end|> water.", "control_token"),
    ],
)
def test_a_rewritten_answer_keeps_the_final_answer(reference: str, answer: str, problem: Kept | None) -> None:
    assert find_problem("A question?", reference, answer, ["<|end|>"]) == problem


def context(base: BaseModel, prompts: PromptSet) -> SafeguardContext:
    return SafeguardContext(SPEC, TESTBED, base, (), prompts, BaseAnswers(base))


def test_a_run_reports_what_was_rewritten_and_previews_show_the_new_answer(tmp_path: Path, prompts: PromptSet) -> None:
    job = context(scripted(tmp_path), prompts)
    thinking = Conversation((user("a"), assistant("b", thinking="Hm.")), 1)
    label = Conversation((user("Mood?"), assistant("Bad")), 2)
    run = UniformStrategy(safeguards=Safeguards(SelfDistill(), AnswerPreview(words=2)))
    rows, (effect,) = safeguards.rewrite_rows(run, job, [ROW, thinking, label], ignore)
    assert effect.safeguard == "self_distill"
    assert effect.summary == "1 of 3 answers rewritten by the base model"
    assert effect.counts == {"rewritten": 1, "kept_answer_lost": 1, "kept_unsuitable": 1}
    assert [row.messages[-1].content for row in rows] == [OWN, "b", "Bad"]
    assert safeguards.training_rows(run, rows)[0].messages[0].content.endswith("words: The help")


def test_rewriting_again_gives_the_same_rows_and_other_safeguards_give_none(
    base: BaseModel, prompts: PromptSet
) -> None:
    job, rows = context(base, prompts), conversations(12)
    run = UniformStrategy(safeguards=Safeguards(SelfDistill(max_new_tokens=32)))
    first, again = (safeguards.rewrite_rows(run, job, rows, ignore) for _ in range(2))
    assert first == again
    assert first[1][0].counts["rewritten"] + sum(
        count for name, count in first[1][0].counts.items() if name.startswith("kept_")
    ) == len(rows)
    assert safeguards.rewrite_rows(UniformStrategy(), job, rows, ignore) == (rows, ())
