"""A complete evaluation on the testbed: its figures, their rows, and its progress."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from core.data import Conversation, load
from core.data.benchmarks import Question, read
from core.data.encoded import Encoded
from core.data.template import RowEncoder
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.quality import evaluate as module
from core.quality.evaluate import ValidationRows, evaluate, split_progress
from core.quality.loss import row_losses
from core.schemas.data import ColumnMap, Message
from core.schemas.evaluation import Figure, TaskAnswer
from core.schemas.quality import ExactMatch, LmEval, MultipleChoice, QualitySpec, RougeL
from core.schemas.training import LoraSpec
from tests.core.helpers import ProgressLog, conversations, ignore
from tests.core.quality.fakes import saying

QUESTIONS = {
    "quiz": (Question("What is 2 + 3?", ("4", "5", "6"), 1), Question("Is a lantern a lamp?", ("yes", "no"), 0)),
    "empty": (),
}


@pytest.fixture(scope="module")
def held(base: BaseModel) -> ValidationRows:
    """Arithmetic rows: every reference has a number after `####`."""
    return held_of(base, conversations(12, "arithmetic.jsonl"))


def held_of(base: BaseModel, rows: Sequence[Conversation], max_length: int = 256) -> ValidationRows:
    encoded = RowEncoder(base.tokenizer, max_length=max_length).encode(rows)
    return ValidationRows([row for row in encoded if row.trained_tokens], rows)


def by_metric(figures: Sequence[Figure]) -> dict[str, Figure]:
    found = {f"{figure.suite} {figure.metric}": figure for figure in figures}
    assert len(found) == len(figures)
    return found


def of(answers: Sequence[TaskAnswer], metric: str) -> list[TaskAnswer]:
    return [answer for answer in answers if answer.metric == metric]


def test_every_task_has_a_figure_and_its_rows(base: BaseModel, held: ValidationRows) -> None:
    tasks = (ExactMatch(), RougeL(), MultipleChoice(benchmark="quiz"), MultipleChoice(benchmark="empty"))
    spec = QualitySpec(tasks=tasks, max_answers=8, max_new_tokens=32)
    told = ProgressLog()
    figures, answers = evaluate(base, base.model, held, spec, QUESTIONS, run="mine", on_progress=told)
    assert {figure.run for figure in figures} == {answer.run for answer in answers} == {"mine"}
    found = by_metric(figures)
    assert list(found) == [
        "task loss",
        "task perplexity",
        "task exact_match",
        "task rouge_l",
        "quiz accuracy",
        "empty accuracy",
    ]
    assert {name: figure.n for name, figure in found.items()} == {
        "task loss": 12,
        "task perplexity": 12,
        "task exact_match": 8,
        "task rouge_l": 8,
        "quiz accuracy": 2,
        "empty accuracy": 0,
    }
    losses = row_losses(base, base.model, held.encoded, on_progress=ignore)
    assert [(row.row, row.value) for row in of(answers, "loss")] == list(enumerate(losses))
    assert found["task loss"].value == pytest.approx(sum(losses) / 12)
    for name in ("exact_match", "rouge_l", "accuracy"):
        rows = of(answers, name)
        figure = found[f"{rows[0].suite} {name}"]
        assert figure.value == pytest.approx(sum(row.value for row in rows) / len(rows))
        assert figure.low <= figure.value <= figure.high
    for exact, rouge, row in zip(of(answers, "exact_match"), of(answers, "rouge_l"), held.conversations, strict=False):
        assert exact.answer == rouge.answer
        assert exact.reference == rouge.reference == row.messages[-1].content
    assert 0 < found["task exact_match"].value < 1  # the testbed adds up to about ten
    total = 12 + 8 + 2
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert all(before[0] <= after[0] for before, after in pairwise(told))


def test_a_domain_has_its_tasks_and_all_given_benchmarks(base: BaseModel, held: ValidationRows) -> None:
    spec = QualitySpec(domain="mathematics", max_answers=2, max_new_tokens=8)
    figures, _ = evaluate(base, base.model, held, spec, QUESTIONS, run="base", on_progress=ignore)
    assert [figure.metric for figure in figures] == ["loss", "perplexity", "exact_match", "accuracy", "accuracy"]
    none = QualitySpec(tasks=())
    figures, answers = evaluate(base, base.model, held, none, QUESTIONS, run="base", on_progress=ignore)
    assert [figure.metric for figure in figures] == ["loss", "perplexity"]
    assert {answer.metric for answer in answers} == {"loss"}


def test_the_prompt_of_a_row_ends_before_its_last_turn(
    base: BaseModel, held: ValidationRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[Message]] = []

    def answer(_base: object, _model: object, prompts: list[Sequence[Message]], **options: object) -> list[str | None]:
        asked.extend(prompts)
        assert options["max_new_tokens"] == 5
        return ["13", None, "", *("#### 1" for _ in prompts[3:])]

    monkeypatch.setattr(module, "answer", answer)
    spec = QualitySpec(tasks=(ExactMatch(), RougeL()), max_answers=4, max_new_tokens=5)
    figures, answers = evaluate(base, base.model, held, spec, {}, run="base", on_progress=ignore)
    assert asked == [row.messages[:-1] for row in held.conversations[:4]]
    found = by_metric(figures)
    for metric in ("exact_match", "rouge_l"):
        assert (found[f"task {metric}"].n, found[f"task {metric}"].undecided) == (3, 1)
        assert [row.row for row in of(answers, metric)] == [0, 2, 3]
    assert [row.value for row in of(answers, "exact_match")] == [1, 0, 0]


def test_a_model_with_empty_answers_is_wrong(base: BaseModel, held: ValidationRows) -> None:
    """The end of the turn is always the most likely token."""
    spec = QualitySpec(tasks=(ExactMatch(), RougeL()), max_answers=3)
    with saying(base, base.stop_ids):
        figures, answers = evaluate(base, base.model, held, spec, {}, run="mute", on_progress=ignore)
    found = by_metric(figures)
    assert {row.answer for row in answers} == {""}
    assert (found["task exact_match"].value, found["task exact_match"].n) == (0, 3)
    assert (found["task rouge_l"].value, found["task rouge_l"].n) == (0, 3)


def test_an_adapter_is_measured(base: BaseModel, modules: tuple[Module, ...], held: ValidationRows) -> None:
    spec = QualitySpec(tasks=(RougeL(), MultipleChoice(benchmark="quiz")), max_answers=3, max_new_tokens=8)
    plain, _ = evaluate(base, base.model, held, spec, QUESTIONS, run="base", on_progress=ignore)
    with attached(base.model, modules, LoraSpec(rank=2), seed=0) as tuned:
        found, _ = evaluate(base, tuned, held, spec, QUESTIONS, run="mine", on_progress=ignore)
    for one, other in zip(plain, found, strict=True):
        assert (one.suite, one.metric, one.n) == (other.suite, other.metric, other.n)
        assert one.value == pytest.approx(other.value, abs=1e-4)


def test_no_rows_and_an_empty_benchmark(base: BaseModel) -> None:
    told = ProgressLog()
    spec = QualitySpec(tasks=(RougeL(), MultipleChoice(benchmark="empty")))
    figures, answers = evaluate(base, base.model, ValidationRows((), ()), spec, QUESTIONS, run="base", on_progress=told)
    assert [(figure.metric, figure.n) for figure in figures] == [
        ("loss", 0),
        ("perplexity", 0),
        ("rouge_l", 0),
        ("accuracy", 0),
    ]
    assert answers == ()
    assert set(told) == {(0, 0)}


def test_the_harness_gets_the_model_and_its_part_of_the_progress(
    base: BaseModel, held: ValidationRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Figure(run="mine", suite="lm_eval:sums", metric="score", judge="acc,none", value=1, n=1, low=0, high=1)

    def harness(given: BaseModel, model: object, task: LmEval, **options: object) -> object:
        assert (given, model, task.task) == (base, base.model, "sums")
        assert (options["run"], options["system_prompt"]) == ("mine", "Be brief.")
        return (score,), ()

    monkeypatch.setattr(module, "run_lm_eval", harness)
    told = ProgressLog()
    spec = QualitySpec(tasks=(LmEval(task="sums", limit=5),))
    figures, _ = evaluate(base, base.model, held, spec, {}, run="mine", on_progress=told, system_prompt="Be brief.")
    assert figures[-1] == score
    assert told[-1] == (17, 17)


def test_rows_keep_their_number_if_others_are_missing(base: BaseModel, held: ValidationRows) -> None:
    whole = row_losses(base, base.model, held.encoded, on_progress=ignore)
    kept = [index for index in range(12) if index not in (0, 5, 6)]
    less = ValidationRows([held.encoded[index] for index in kept], held.conversations)

    def rows(given: ValidationRows) -> list[tuple[int, float]]:
        _, answers = evaluate(base, base.model, given, QualitySpec(tasks=()), {}, run="base", on_progress=ignore)
        return [(answer.row, answer.value) for answer in answers]

    assert rows(less) == [(index, pytest.approx(whole[index])) for index in kept]
    # Several rows on one line, as a JSON array may have them.
    one_line = ValidationRows(
        [_on_line_one(row) for row in held.encoded], [replace(row, line=1) for row in held.conversations]
    )
    assert [row for row, _ in rows(one_line)] == list(range(12))
    # Only the first ones as words.
    assert [row for row, _ in rows(ValidationRows(held.encoded, held.conversations[:2]))] == list(range(12))


def _on_line_one(row: Encoded) -> Encoded:
    return replace(row, line=1)


def test_every_progress_report_may_stop(base: BaseModel, held: ValidationRows) -> None:
    spec = QualitySpec(tasks=(RougeL(), MultipleChoice(benchmark="quiz")), max_answers=2, max_new_tokens=4)
    told = ProgressLog()
    evaluate(base, base.model, held, spec, QUESTIONS, run="base", on_progress=told)
    for last in range(1, len(told) + 1):
        heard = ProgressLog()

        def stop(done: int, total: int, heard: ProgressLog = heard, last: int = last) -> None:
            heard(done, total)
            if len(heard) == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(base, base.model, held, spec, QUESTIONS, run="base", on_progress=stop)


def test_split_progress_adds_up_and_never_decreases() -> None:
    told = ProgressLog()
    first, empty, last = split_progress(told, [10, 0, 4])
    for on_progress, done, total in (
        (first, 0, 5),
        (first, 3, 5),
        (first, 2, 5),
        (first, 9, 5),
        (empty, 1, 1),
        (last, 0, 0),
        (last, 1, 2),
        (first, 0, 5),
        (last, 1, 1),
    ):
        on_progress(done, total)
    assert [done for done, _ in told] == [0, 6, 6, 10, 10, 10, 12, 12, 14]
    assert {total for _, total in told} == {14}


def test_published_gsm8k_and_mmlu(base: BaseModel, public_data: Path) -> None:
    columns = ColumnMap(prompt="question", completion="answer")
    rows = load(public_data / "gsm8k" / "test.jsonl", columns, max_rows=100_000)[:12]
    spec = QualitySpec(
        tasks=(ExactMatch(), MultipleChoice(benchmark="mathematics", max_questions=8)), max_new_tokens=24
    )
    questions = read(public_data / "mmlu_subset" / "elementary_mathematics_test.jsonl", most=20)
    figures, answers = evaluate(
        base, base.model, held_of(base, rows, 1024), spec, {"mathematics": questions}, run="base", on_progress=ignore
    )
    found = by_metric(figures)
    assert (found["task exact_match"].n, found["task exact_match"].undecided) == (12, 0)
    assert found["task exact_match"].value < 0.5
    assert (found["mathematics accuracy"].n, found["mathematics accuracy"].undecided) == (8, 0)
    assert found["task perplexity"].value > 100
    assert len(of(answers, "accuracy")) == 8
