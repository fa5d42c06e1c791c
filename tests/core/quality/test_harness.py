"""lm-evaluation-harness runs tasks of a local file on the model in memory; skipped if it is not installed."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from torch import nn

from core.errors import InvalidInput, Unavailable
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.quality.harness import run_lm_eval
from core.quality.tasks import estimate_size
from core.schemas.quality import LmEval
from core.schemas.training import LoraSpec
from tests.core.helpers import ProgressLog, ignore

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: securetune[lm-eval]")

_TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
{rest}
tag: all_sums
metadata:
  version: 1.0
"""
_GROUP = """
group: grouped
task: [sums, sums_by_median]
aggregate_metric_list:
  - metric: acc
    weight_by_size: true
metadata:
  version: 1.0
"""
_CHOICE = """doc_to_target: answer
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
_WORDS = """doc_to_target: "{{choices[answer]}}"
generation_kwargs:
  until: ["<stop>"]
  max_gen_toks: 8
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
_MEDIAN = _CHOICE.replace("aggregation: mean", "aggregation: median")


@pytest.fixture(scope="module")
def own_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a multiple-choice task, tasks with generated answers, and invalid tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    texts = [
        {"question": f"What is {number} plus 3?", "choices": [f"{number + step}" for step in (3, 4, 7)], "answer": 0}
        for number in range(12)
    ]
    rows.write_text("".join(f"{json.dumps(text)}\n" for text in texts))
    kinds = {
        "sums": (rows, "multiple_choice", _CHOICE),
        "sums_in_words": (rows, "generate_until", _WORDS),
        "sums_by_median": (rows, "multiple_choice", _MEDIAN),
        "no_data": (folder / "missing.jsonl", "multiple_choice", _CHOICE),
        "no_kind": (rows, "no_such_kind", _CHOICE),
    }
    for name, (path, kind, rest) in kinds.items():
        text = _TASK.format(name=name, rows=path, kind=kind, rest=rest)
        (folder / f"{name}.yaml").write_text(text if name.startswith("sums") else text.replace("tag: all_sums", ""))
    (folder / "grouped.yaml").write_text(_GROUP)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep data sets out of the user's own cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)


def test_choices_give_figures_and_answers(base: BaseModel, own_tasks: Path) -> None:
    padding, pad = base.tokenizer.padding_side, base.tokenizer.pad_token
    task, told = LmEval(task="sums", limit=10), ProgressLog()
    (figure,), answers = run_lm_eval(base, base.model, task, run="base", on_progress=told, own_tasks=own_tasks)
    assert (figure.run, figure.suite, figure.metric, figure.judge) == ("base", "lm_eval:sums", "score", "acc,none")
    assert figure.n == len(answers) == 10
    assert figure.value == pytest.approx(sum(answer.value for answer in answers) / 10)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert {answer.answer for answer in answers} <= {"0", "1", "2"}
    assert all((answer.answer == answer.reference) == (answer.value == 1) for answer in answers)
    assert told
    assert all(before[0] <= after[0] < 10 == after[1] for before, after in pairwise(told))
    assert (base.tokenizer.padding_side, base.tokenizer.pad_token) == (padding, pad)
    assert "DISABLE_MULTIPROC" not in os.environ
    assert not base.model.get_input_embeddings()._forward_pre_hooks


def test_an_adapter_runs_without_a_copy_of_the_weights(
    base: BaseModel, modules: tuple[Module, ...], own_tasks: Path
) -> None:
    task = LmEval(task="sums", limit=None)
    (plain,), before = run_lm_eval(base, base.model, task, run="base", on_progress=ignore, own_tasks=own_tasks)
    assert plain.n == 12
    with attached(base.model, modules, LoraSpec(rank=2), seed=0) as tuned:
        (same,), after = run_lm_eval(base, tuned, task, run="mine", on_progress=ignore, own_tasks=own_tasks)
        assert same.value == plain.value
        assert [answer.answer for answer in after] == [answer.answer for answer in before]
        for name, parameter in tuned.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter.data)
        _, changed = run_lm_eval(base, tuned, task, run="mine", on_progress=ignore, own_tasks=own_tasks)
        assert [answer.answer for answer in changed] != [answer.answer for answer in before]


def test_generation_reports_progress(base: BaseModel, own_tasks: Path) -> None:
    told, task = ProgressLog(), LmEval(task="sums_in_words", limit=5)
    (figure,), answers = run_lm_eval(base, base.model, task, run="base", on_progress=told, own_tasks=own_tasks)
    assert figure.judge == "exact_match,none"
    assert len(answers) == 5
    assert all(answer.answer for answer in answers)
    assert len(told) > 5
    assert told == sorted(told)


def test_the_system_prompt_and_examples_change_the_prompt(base: BaseModel, own_tasks: Path) -> None:
    def said(task: LmEval, system_prompt: str | None = None) -> list[str]:
        _, answers = run_lm_eval(
            base, base.model, task, run="base", on_progress=ignore, own_tasks=own_tasks, system_prompt=system_prompt
        )
        return [answer.answer for answer in answers]

    plain = said(LmEval(task="sums_in_words", limit=4))
    assert said(LmEval(task="sums_in_words", limit=4), "Answer with a map.") != plain
    assert said(LmEval(task="sums_in_words", limit=4, shots=2)) != plain


def test_intervals_of_other_metrics_are_bootstrapped_in_this_process(base: BaseModel, own_tasks: Path) -> None:
    task = LmEval(task="sums_by_median", limit=5)
    (figure,), _ = run_lm_eval(base, base.model, task, run="base", on_progress=ignore, own_tasks=own_tasks)
    assert figure.low <= figure.value <= figure.high
    assert "DISABLE_MULTIPROC" not in os.environ


def test_a_group_is_one_figure_and_a_tag_is_one_for_each_task(base: BaseModel, own_tasks: Path) -> None:
    def suites(name: str) -> list[tuple[str, int]]:
        task = LmEval(task=name, limit=3)
        figures, _ = run_lm_eval(base, base.model, task, run="base", on_progress=ignore, own_tasks=own_tasks)
        return sorted((figure.suite, figure.n) for figure in figures)

    assert suites("grouped") == [("lm_eval:grouped", 6)]
    assert suites("all_sums") == [(f"lm_eval:{name}", 3) for name in ("sums", "sums_by_median", "sums_in_words")]


def test_a_stop_leaves_no_hook(base: BaseModel, own_tasks: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    for name in ("sums", "sums_in_words"):
        with pytest.raises(KeyboardInterrupt):
            run_lm_eval(base, base.model, LmEval(task=name), run="base", on_progress=stop, own_tasks=own_tasks)
    assert not base.model.get_input_embeddings()._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("nothing_of_that_name", InvalidInput, "unknown_lm_eval_task"),
        ("sums.yaml", InvalidInput, "unknown_lm_eval_task"),
        ("no_data", Unavailable, "lm_eval_failed"),
        ("no_kind", InvalidInput, "lm_eval_refused"),
    ],
)
def test_failures_have_a_reason(
    base: BaseModel, own_tasks: Path, name: str, kind: type[InvalidInput | Unavailable], code: str
) -> None:
    with pytest.raises(kind) as caught:
        run_lm_eval(base, base.model, LmEval(task=name), run="base", on_progress=ignore, own_tasks=own_tasks)
    assert (caught.value.code, caught.value.param) == (code, "quality.tasks")


def test_the_number_of_questions_is_estimated_without_a_limit() -> None:
    assert (estimate_size(LmEval(task="sums", limit=7)), estimate_size(LmEval(task="sums", limit=None))) == (7, 200)
