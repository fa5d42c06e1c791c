"""A domain has its tasks and its listed benchmarks; tasks that cannot be measured are rejected in advance."""

from pathlib import Path
from subprocess import run
from sys import executable

import pytest

from core.errors import InvalidInput, Unavailable
from core.quality import tasks
from core.quality.tasks import check_tasks, tasks_for
from core.schemas.prompts import PromptFileSource
from core.schemas.quality import (
    BenchmarkEntry,
    Domain,
    ExactMatch,
    LmEval,
    MultipleChoice,
    QualitySpec,
    QualityTask,
    RougeL,
)
from tests.core.quality.fakes import always


def entry(name: str, domain: Domain) -> BenchmarkEntry:
    return BenchmarkEntry(name=name, domain=domain, source=PromptFileSource(path=Path("nowhere")))


LISTED = (entry("mmlu", "general"), entry("college-medicine", "medical"), entry("anatomy", "medical"))


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("general", (RougeL(), MultipleChoice(benchmark="mmlu"))),
        (
            "medical",
            (RougeL(), MultipleChoice(benchmark="college-medicine"), MultipleChoice(benchmark="anatomy")),
        ),
        ("legal", (RougeL(),)),
        ("mathematics", (ExactMatch(extract="number"),)),
        ("finance", (ExactMatch(extract="number"), RougeL())),
    ],
)
def test_a_domain_has_its_tasks_and_its_benchmarks(domain: Domain, expected: tuple[QualityTask, ...]) -> None:
    spec = QualitySpec(domain=domain)
    assert tasks_for(spec, LISTED) == expected
    check_tasks(spec, LISTED)


def test_named_tasks_replace_those_of_the_domain() -> None:
    named = (MultipleChoice(benchmark="mmlu", max_questions=7),)
    assert tasks_for(QualitySpec(domain="medical", tasks=named), LISTED) == named
    assert tasks_for(QualitySpec(tasks=()), LISTED) == ()


@pytest.mark.parametrize(
    ("listed", "there"), [(LISTED, "It has: anatomy, college-medicine, mmlu."), ((), "It lists none.")]
)
def test_an_unlisted_benchmark_is_rejected(listed: tuple[BenchmarkEntry, ...], there: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_tasks(QualitySpec(tasks=(MultipleChoice(benchmark="mlu"),)), listed)
    assert (caught.value.code, caught.value.param) == ("unknown_benchmark", "quality.tasks")
    assert caught.value.message == f"'mlu' is not a benchmark of this server. {there}"


@pytest.mark.parametrize(
    ("two", "figure"),
    [
        ((ExactMatch(), ExactMatch(extract="choice")), "exact_match"),
        (
            (MultipleChoice(benchmark="mmlu"), MultipleChoice(benchmark="mmlu", max_questions=3)),
            "benchmark mmlu",
        ),
        ((LmEval(task="arc_easy"), LmEval(task="arc_easy", shots=5)), "lm_eval task arc_easy"),
    ],
)
def test_two_tasks_with_one_figure_are_rejected(two: tuple[QualityTask, ...], figure: str) -> None:
    with pytest.raises(InvalidInput, match=f"names {figure} twice") as caught:
        check_tasks(QualitySpec(tasks=two), LISTED)
    assert (caught.value.code, caught.value.param) == ("task_named_twice", "quality.tasks")


def test_tasks_of_the_harness_need_it_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = QualitySpec(tasks=(LmEval(task="arc_easy"),))
    monkeypatch.setattr(tasks, "find_spec", always(None))
    with pytest.raises(Unavailable, match=r"securetune\[lm-eval\]") as caught:
        check_tasks(spec, LISTED)
    assert (caught.value.code, caught.value.param) == ("lm_eval_missing", "quality.tasks")
    check_tasks(QualitySpec(), LISTED)
    monkeypatch.setattr(tasks, "find_spec", always(object()))
    check_tasks(spec, LISTED)


def test_it_imports_no_torch() -> None:
    code = "import sys, core.quality.tasks, core.data.benchmarks; sys.exit('torch' in sys.modules)"
    assert run([executable, "-c", code], check=False, cwd=Path(__file__).parents[3]).returncode == 0
