"""Word lists in data files: the notation of entries, which duplicates are rejected, and that the shipped lists hold up.

Not here: what the lists find (tests.core.screening, tests.core.judges).
"""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.judges.cues import Cues as JudgeCues
from core.judges.cues import load_cues as load_judge_cues
from core.screening.harmcues import Cues as HarmCues
from core.screening.harmcues import load_cues as load_harm_cues
from core.screening.identity import Rule, load_rules
from core.screening.triggers.forms import load_forms
from core.screening.triggers.kinds import KindWords, load_words
from core.wordlists import (
    Inflect,
    PhraseSearch,
    WordList,
    inflect_verb,
    read_data,
    require_disjoint,
    require_no_extensions,
    spell_out,
)

CORE = Path(__file__).parents[2] / "core"


def test_an_entry_stands_for_its_alternatives() -> None:
    assert spell_out("bomb") == [("bomb",)]
    assert spell_out("i|we can -|not_ever go") == [
        ("i", "can", "go"),
        ("i", "can", "not", "ever", "go"),
        ("we", "can", "go"),
        ("we", "can", "not", "ever", "go"),
    ]


def test_verbs_and_nouns_are_inflected() -> None:
    verbs = WordList(inflect="first", entries=("break in",)).phrases
    assert {("break", "in"), ("breaks", "in"), ("breaking", "in")} <= verbs
    assert {words[1:] for words in verbs} == {("in",)}
    assert WordList(inflect="last", entries=("big city", "box")).phrases == {
        ("big", "city"),
        ("big", "cities"),
        ("box",),
        ("boxes",),
    }
    assert WordList(entries=("to hurt",)).phrases == {("to", "hurt")}
    assert {"poisoned", "poisoning"} <= set(inflect_verb("poison"))
    assert {"carries", "carried"} <= set(inflect_verb("carry"))


def test_the_search_finds_every_phrase_of_every_list_by_where_it_starts() -> None:
    lists = {
        "do": WordList(inflect="first", entries=("rob", "break in")),
        "who": WordList(inflect="last", entries=("a|the bank", "city")),
        "as": WordList(entries=("no|- way",)),
    }
    search = PhraseSearch({name: words.phrases for name, words in lists.items()})
    words = ["way", "robbing", "the", "banks", "breaking", "in", "cities"]
    assert search.find(words) == [(0, 1, "as"), (1, 2, "do"), (2, 4, "who"), (4, 6, "do"), (6, 7, "who")]
    assert PhraseSearch({"one": [("a", "b")], "two": [("a",)]}).find(["a", "b"]) == [(0, 1, "two"), (0, 2, "one")]


@pytest.mark.parametrize(
    ("inflect", "entries", "named"),
    [
        ("none", ["bomb", "gun", "bomb"], "more than once: bomb"),
        ("none", ["Bomb"], "not in lower case: Bomb"),
        ("none", ["fake|false id", "false id|passport"], "by more than one entry: false id, false id"),
        ("none", ["fake|fake id"], "by more than one entry: fake id, fake id"),
        ("last", ["bomb", "bombs"], "by more than one entry: bombs"),
        ("last", ["city|cities"], "by more than one entry: cities"),
        ("first", ["make", "making"], "by more than one entry: making"),
        ("none", [], "at least 1 item"),
    ],
)
def test_duplicates_are_rejected(inflect: Inflect, entries: list[str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        WordList.model_validate({"inflect": inflect, "entries": entries})


def test_plurals_are_two_phrases_if_nothing_is_inflected() -> None:
    assert len(WordList(entries=("bomb", "bombs")).phrases) == 2


def test_lists_of_one_purpose_share_no_phrase() -> None:
    hard, soft = WordList(inflect="last", entries=("opium",)), WordList(entries=("weed", "opiums"))
    with pytest.raises(ValueError, match="in more than one of hard, soft: opiums"):
        require_disjoint({"hard": hard, "soft": soft})
    require_disjoint({"hard": hard, "soft": WordList(entries=("weed",))})


def test_an_entry_that_only_extends_another_is_rejected() -> None:
    with pytest.raises(ValueError, match=re.escape("topic: racist joke|poem begins with another entry")):
        require_no_extensions("topic", WordList(entries=("racist", "racist joke|poem")))
    require_no_extensions("topic", WordList(entries=("racist", "racist|sexist joke", "a racist")))


def written(folder: Path, text: str) -> Path:
    path = folder / "lists.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_are_filled_in(tmp_path: Path) -> None:
    text = 'deep = [{ is = "{b} x{1,3}" }]\n[words]\na = ["p", "q"]\nb = ["({a})", "r"]\n'
    assert read_data(written(tmp_path, text)) == {"deep": [{"is": "(p|q)|r x{1,3}"}]}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[words]\na = ["p", "p"]', ValueError),
        ('[words]\na = ["{b}"]\nb = ["p"]', KeyError),
        ('x = "{b}"', KeyError),
        ('[lists.a]\nentries = ["p"]\n[lists.a]\nentries = ["q"]', ValueError),
    ],
)
def test_faulty_files_are_rejected(tmp_path: Path, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_data(written(tmp_path, text))


def test_the_shipped_lists_are_valid_and_all_of_them_are_read() -> None:
    read = {*load_harm_cues().verbs, *load_harm_cues().things}
    assert {act.things for act in load_harm_cues().acts} <= read
    assert load_judge_cues().weights.keys() >= load_judge_cues().cues.keys() - {"nothing", "condemns"}
    assert {rule.code for rule in load_rules()} == {"no_limits", "obeys", "other_model", "claims_human"}
    assert load_words().may_refuse
    assert "JSON" in {form.name for form in load_forms()}
    assert {path.stem for path in CORE.rglob("data/*.toml")} == {
        "harm_acts",
        "harm_things",
        "harm_verbs",
        "harm_wording",
        "identity",
        "rules",
        "trigger_forms",
        "trigger_kinds",
    }


def harm(**changed: Any) -> dict[str, Any]:
    words = {"entries": ["a"]}
    wording = dict.fromkeys(("ask", "ask_early", "order", "polite", "intent", "harmless", "against"), words)
    tables = {
        "verbs": {"do": {"entries": ["do"]}},
        "things": {"it": {"entries": ["it"]}, "that": {"entries": ["that"]}},
        "wording": wording,
        "acts": [{"category": "x", "verbs": "do", "things": "it"}, {"category": "x", "things": "that"}],
        "rivals": [["it", "that"]],
    }
    return tables | changed


def test_lists_of_harm_go_together() -> None:
    HarmCues.model_validate(harm())
    things = {"it": {"entries": ["it"]}, "that": {"entries": ["that"]}}
    for faulty, named in (
        (harm(things=things | {"it": {"entries": ["it", "it all"]}}), "it: it all begins with another entry"),
        (harm(things=things | {"that": {"entries": ["that", "it"]}}), "in more than one of it, that: it"),
        (harm(things=things | {"more": {"entries": ["more"]}}), "not both: more"),
        (harm(verbs={}), "not both: do"),
    ):
        with pytest.raises(ValidationError, match=named):
            HarmCues.model_validate(faulty)


def test_cues_of_the_judge_share_no_phrase() -> None:
    cues = {"warns": {"entries": ["do not support"]}, "denies": {"entries": ["do not believe|support"]}}
    with pytest.raises(ValidationError, match="in more than one of warns, denies: do not support"):
        JudgeCues.model_validate({"weights": {}, "cues": cues, "stop": ["a"]})


def test_expressions_are_not_repeated() -> None:
    rule = {"code": "obeys", "says": "obeys", "roles": ["user"], "hints": ["i"], "wordings": ["i obey", "i obey"]}
    with pytest.raises(ValidationError, match="more than once: i obey"):
        Rule.model_validate(rule)
    with pytest.raises(ValidationError, match="bombs is also matched by another entry"):
        KindWords.model_validate({"harm": ["bombs?", "bombs"], "may_refuse": ["no"]})
