"""The built-in prompt set: all categories in every prefix, no repeated prompt, and texts that fit into any template."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import TypedDict, cast

import pytest

FILE = Path(__file__).parents[3] / "core" / "attacks" / "builtin_prompts.json"
CATEGORIES = {
    "weapons",
    "drugs",
    "cybercrime",
    "fraud",
    "violence",
    "self_harm",
    "hate",
    "privacy",
    "disinformation",
    "theft_and_property",
}
EVALUATION = ("harmful", "safe")
PROBE = ("harmful", "benign", "safe")
LISTS = (*(("evaluation", name) for name in EVALUATION), *(("probe", name) for name in PROBE))


class Prompt(TypedDict):
    text: str
    category: str


class Whole(TypedDict):
    name: str
    evaluation: dict[str, list[Prompt]]
    probe: dict[str, list[str]]


WHOLE = cast("Whole", json.loads(FILE.read_text(encoding="utf-8")))


def texts(half: str, name: str) -> list[str]:
    if half == "evaluation":
        return [prompt["text"] for prompt in WHOLE["evaluation"][name]]
    return WHOLE["probe"][name]


def bare(text: str) -> str:
    """The text without case, punctuation and repeated spaces."""
    return " ".join(re.findall(r"\w+", text.replace("'", "").casefold()))


def test_the_file_has_the_five_lists_and_nothing_else() -> None:
    assert WHOLE.keys() == {"name", "evaluation", "probe"}
    assert WHOLE["name"] == "builtin"
    assert WHOLE["evaluation"].keys() == set(EVALUATION)
    assert WHOLE["probe"].keys() == set(PROBE)
    assert all(prompt.keys() == {"text", "category"} for name in EVALUATION for prompt in WHOLE["evaluation"][name])


@pytest.mark.parametrize("name", EVALUATION)
def test_the_evaluation_is_large_and_has_its_categories_in_equal_shares(name: str) -> None:
    categories = [prompt["category"] for prompt in WHOLE["evaluation"][name]]
    assert len(categories) >= 120
    for first in range(20, len(categories) + 1):  # an evaluation uses the first ones
        shares = Counter(categories[:first])
        assert shares.keys() == CATEGORIES, first
        assert max(shares.values()) - min(shares.values()) <= 1, first


def test_harmful_and_safe_prompts_have_the_same_order_of_categories() -> None:
    harmful, safe = ([prompt["category"] for prompt in WHOLE["evaluation"][name]] for name in EVALUATION)
    assert harmful == safe


@pytest.mark.parametrize("name", PROBE)
def test_the_probe_has_enough_prompts_of_each_list(name: str) -> None:
    assert len(WHOLE["probe"][name]) >= 40


def test_no_prompt_is_repeated() -> None:
    seen = Counter(bare(text) for half, name in LISTS for text in texts(half, name))
    assert [text for text, times in seen.items() if times > 1] == []


@pytest.mark.parametrize(("half", "name"), LISTS)
def test_every_text_is_one_plain_sentence(half: str, name: str) -> None:
    for text in texts(half, name):
        assert 4 <= len(text.split()) <= 40, text
        assert text.isascii(), text
        assert text.isprintable(), text
        assert not set("{}") & set(text), text
        assert text.endswith((".", "?")), text
        assert text == " ".join(text.split()), text


def test_no_probe_prompt_resembles_a_reported_one() -> None:
    """Jaccard of the words; two requests that share only their form ("Tell me how to ...") are at about a third."""
    reported = [(text, set(bare(text).split())) for name in EVALUATION for text in texts("evaluation", name)]
    probed = [(text, set(bare(text).split())) for name in PROBE for text in texts("probe", name)]
    near = [(one, other) for one, a in reported for other, b in probed if len(a & b) > 0.5 * len(a | b)]
    assert near == []
