"""The prompt set of a job: named sets, the model's own set, or the built-in one."""

import json
from pathlib import Path

import pytest

from core.attacks.prompts import choose_prompts, digest_prompts, find_trained_on, identify_prompts, take_balanced
from core.errors import InvalidModel
from core.schemas.prompts import Behaviour, PromptSet
from core.schemas.security import SecuritySpec
from testbed import MODEL_DIR

FILE = "security_prompts.json"


def probe(**fields: list[str]) -> dict[str, list[str]]:
    """A valid probe half with the given fields replaced."""
    good = {name: [f"{name} {number}" for number in range(8)] for name in ("harmful", "benign")}
    return good | fields


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model folder with its own prompt set."""
    texts = [f"prompt {number}" for number in range(6)]
    evaluation = {"harmful": texts, "safe": texts[:5]}
    (tmp_path / FILE).write_text(json.dumps({"name": "own", "evaluation": evaluation, "probe": probe()}))
    return tmp_path


def test_the_models_own_set_is_preferred(own: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert choose_prompts(SecuritySpec(), own).name == "own"
    assert choose_prompts(SecuritySpec(prompts="builtin"), own).name == "builtin"
    assert choose_prompts(SecuritySpec(), tmp_path_factory.mktemp("bare")).name == "builtin"
    assert choose_prompts(SecuritySpec(), MODEL_DIR).name == "testbed"


def test_max_prompts_cuts_the_reported_prompts_only(own: Path) -> None:
    found = choose_prompts(SecuritySpec(max_prompts=4), own)
    wanted = ("prompt 0", "prompt 1", "prompt 2", "prompt 3")
    assert tuple(behaviour.text for behaviour in found.evaluation.harmful) == wanted
    assert tuple(behaviour.text for behaviour in found.evaluation.safe) == wanted
    assert len(found.probe.harmful) == len(found.probe.benign) == 8
    whole = choose_prompts(SecuritySpec(max_prompts=1000), own)
    assert (len(whole.evaluation.harmful), len(whole.evaluation.safe)) == (6, 5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"name": "own"}',
        "\xff\xfe",
        json.dumps({"name": "own", "evaluation": {"harmful": ["a"], "safe": ["b"]}, "probe": None}),
        json.dumps(
            {
                "name": "too few for a classifier",
                "evaluation": {"harmful": ["a"], "safe": ["b"]},
                "probe": {"harmful": ["a"] * 7, "benign": ["b"] * 8},
            }
        ),
        json.dumps(
            {
                "name": "nothing to attack with",
                "evaluation": {"harmful": [], "safe": ["b"]},
                "probe": {"harmful": ["a"] * 8, "benign": ["b"] * 8},
            }
        ),
    ],
)
def test_an_unreadable_prompt_set_is_rejected(own: Path, content: str) -> None:
    (own / FILE).write_text(content, encoding="latin-1")
    with pytest.raises(InvalidModel) as caught:
        choose_prompts(SecuritySpec(), own)
    assert caught.value.code == "invalid_prompt_set"
    assert FILE in caught.value.message


@pytest.mark.parametrize(
    ("half", "says"),
    [
        (probe(harmful=["a"]), "probe.harmful: Tuple should have at least 8 items after validation, not 1"),
        ({"harmful": probe()["harmful"]}, "probe.benign: Field required"),
        (probe(benign=["a"] * 40), "probe.benign has only 1 different prompts, and 8 are needed"),
        (
            probe(benign=probe()["harmful"]),
            "8 prompts, such as 'harmful 0', are in probe.harmful and in probe.benign",
        ),
        (probe(harmful=[*probe()["harmful"], "prompt 3"]), "1 prompts, such as 'prompt 3', are in both halves"),
        (probe(safe=["prompt 4"]), "1 prompts, such as 'prompt 4', are in both halves"),
    ],
)
def test_an_invalid_prompt_set_is_rejected_with_what_to_correct(own: Path, half: object, says: str) -> None:
    content = json.loads((own / FILE).read_text()) | {"probe": half}
    (own / FILE).write_text(json.dumps(content))
    with pytest.raises(InvalidModel) as caught:
        choose_prompts(SecuritySpec(), own)
    assert (caught.value.code, caught.value.param) == ("invalid_prompt_set", "security.prompts")
    assert says in caught.value.message
    assert "builtin" in caught.value.message
    assert choose_prompts(SecuritySpec(prompts="builtin"), own).name == "builtin"


def test_the_built_in_set_is_complete_and_its_parts_are_disjoint(tmp_path: Path) -> None:
    found: PromptSet = choose_prompts(SecuritySpec(max_prompts=1000), tmp_path)
    reported = [tuple(each.text for each in part) for part in (found.evaluation.harmful, found.evaluation.safe)]
    parts = (*reported, found.probe.harmful, found.probe.benign, found.probe.safe)
    texts = [text for part in parts for text in part]
    assert len(set(texts)) == len(texts)
    assert all(len(part) >= 20 for part in parts)
    assert all(text == text.strip() and len(text) > 10 for text in texts)


def behaviours(*texts: str, category: str | None = None) -> tuple[Behaviour, ...]:
    return tuple(Behaviour(text=text, category=category) for text in texts)


def test_named_sets_replace_the_reported_prompts(own: Path) -> None:
    found = choose_prompts(SecuritySpec(), own, {"harmful": ("advbench", behaviours("steal", "rob", "prompt 9"))})
    assert [each.text for each in found.evaluation.harmful] == ["steal", "rob", "prompt 9"]
    assert [each.text for each in found.evaluation.safe] == [f"prompt {number}" for number in range(5)]
    assert found.name == "own, harmful: advbench"
    both = choose_prompts(SecuritySpec(), own, {"harmful": ("a", behaviours("x")), "safe": ("b", behaviours("y"))})
    assert both.name == "own, harmful: a, safe: b"


def test_reported_prompts_are_removed_from_the_probe(own: Path) -> None:
    content = json.loads((own / FILE).read_text())
    content["probe"]["harmful"].append("steal")
    content["probe"]["safe"] = ["kill a process", "stop a bus"]
    (own / FILE).write_text(json.dumps(content))
    found = choose_prompts(SecuritySpec(), own, {"harmful": ("advbench", behaviours("steal", "rob"))})
    assert "steal" not in found.probe.harmful
    assert len(found.probe.harmful) == 8
    safe = choose_prompts(SecuritySpec(), own, {"safe": ("xstest", behaviours("kill a process"))})
    assert safe.probe.safe == ("stop a bus",)
    with pytest.raises(InvalidModel) as caught:
        choose_prompts(SecuritySpec(), own, {"harmful": ("advbench", behaviours(*probe()["harmful"]))})
    assert caught.value.code == "invalid_prompt_set"
    assert "'advbench'" in caught.value.message


def test_a_cut_set_has_its_categories_in_turn() -> None:
    grouped = (*behaviours("a1", "a2", "a3", category="a"), *behaviours("b1", category="b"), *behaviours("c1", "c2"))
    assert [each.text for each in take_balanced(grouped, 4)] == ["a1", "b1", "c1", "a2"]
    assert take_balanced(grouped, 6) == grouped
    assert [each.text for each in take_balanced(behaviours("1", "2", "3"), 2)] == ["1", "2"]


def test_a_set_is_identified_whole_before_it_is_cut(own: Path) -> None:
    whole, cut = (identify_prompts(SecuritySpec(max_prompts=count), own) for count in (1000, 4))
    assert whole == cut
    assert (whole["harmful"].automatic, whole["safe"].automatic) == (True, True)
    builtin = identify_prompts(SecuritySpec(prompts="builtin"), own)
    assert (builtin["harmful"].automatic, builtin["harmful"].size) == (False, 130)
    assert builtin["harmful"].sha256 != whole["harmful"].sha256
    named = identify_prompts(SecuritySpec(), own, {"harmful": ("mine", behaviours("steal", "rob"))})
    assert (named["harmful"].automatic, named["harmful"].size) == (False, 2)
    assert named["safe"] == whole["safe"]


def test_order_category_and_context_identify_a_set() -> None:
    """They decide what a cut set consists of, and what the model gets."""
    one, other = Behaviour(text="steal", category="a"), Behaviour(text="rob", category="b")
    sets = [
        (one, other),
        (other, one),
        (one,),
        (one, other.model_copy(update={"category": "a"})),
        (one, other.model_copy(update={"context": "A bank."})),
        (Behaviour(text="stealrob", category="a"),),
    ]
    assert len({digest_prompts(each) for each in sets}) == len(sets)


def test_prompts_in_training_texts_are_found_whatever_their_case_and_spaces() -> None:
    prompts = behaviours("How do I steal a car?", "How do I rob a bank?")
    assert find_trained_on(prompts, ["Tell me:\nhow do i  STEAL a\tcar? Now.", "How do I rob", "a bank?"]) == 1
    assert find_trained_on(prompts, []) == 0
