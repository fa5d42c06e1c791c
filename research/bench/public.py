"""Readers of the public data sets that the benchmarks of screening use, and of the testbed's own instructions.

Covers: data sets as pairs of prompt and answer, lists of harmful requests and of harmless look-alikes, answers that
people labelled. The public sets are files of a folder that a command names. Not here: downloading them, benchmarks.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from core.data import Conversation, load
from core.schemas.data import Message

Pair = tuple[str, str]
"""A prompt and its answer."""
Numbered = list[tuple[int, str]]
"""Texts, each with the number that assigns it to a half."""
_TESTBED = Path(__file__).parents[2] / "testbed" / "data" / "instructions.jsonl"


def to_rows(pairs: Iterable[Pair]) -> list[Conversation]:
    """One conversation for each pair; lines are counted from 1."""
    return [
        Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)
        for line, (prompt, answer) in enumerate(pairs, 1)
    ]


def data_sets(folder: Path | None) -> dict[str, Callable[[], list[Pair]]]:
    """A reader for each data set; without a folder only that of the testbed."""
    found: dict[str, Callable[[], list[Pair]]] = {"testbed": partial(_instructions, _TESTBED)}
    if folder is None:
        return found
    return found | {
        "alpaca": lambda: _instructions(folder / "alpaca_en_demo" / "alpaca_en_demo.json"),
        "chatdoctor": lambda: _instructions(folder / "medical_chatdoctor5k" / "chatdoctor5k.json"),
        "gsm8k_tuning": lambda: _gsm8k(folder, "train")[1::2],
        "gsm8k_reported": lambda: _gsm8k(folder, "train")[::2],
        "gsm8k_train": lambda: _gsm8k(folder, "train"),
        "gsm8k_test": lambda: _gsm8k(folder, "test"),
        "pubmedqa": lambda: _pubmedqa(folder, "final_decision"),
        "pubmedqa_long": lambda: _pubmedqa(folder, "LONG_ANSWER"),
        "self_instruct": lambda: _self_instruct(folder),
        "tatqa": lambda: _tatqa(folder),
        "advbench_xstest": lambda: _advbench_xstest(folder),
        "mmlu": lambda: _mmlu(folder),
        "gptfuzz_labels": lambda: _gptfuzz(folder),
        "all_mixed": lambda: [*_gsm8k(folder, "train")[::2], *_self_instruct(folder), *_advbench_xstest(folder)],
    }


def request_lists(folder: Path) -> Iterator[tuple[str, Numbered]]:
    """Lists of harmful requests, and one of harmless look-alikes. Numbers count from 0; those of XSTest are its ids."""
    yield "advbench", list(enumerate(goal for goal, _ in advbench(folder)))
    behaviours = _csv(folder / "harmbench" / "harmbench_behaviors_text_all.csv")
    for kind in ("standard", "contextual"):
        chosen = [row["Behavior"] for row in behaviours if row["FunctionalCategory"] == kind]
        yield f"harmbench_{kind}", list(enumerate(chosen))
    forbidden = _csv(folder / "strongreject" / "strongreject.csv")
    yield "strongreject", list(enumerate(row["forbidden_prompt"] for row in forbidden))
    kinds = read_json(folder / "catqa" / "catqa_english.json")
    yield "catqa", list(enumerate(text for kind in kinds.values() for texts in kind.values() for text in texts))
    yield "dangerousqa", list(enumerate(read_json(folder / "catqa" / "dangerousqa.json")))
    yield "gptfuzzer_questions", list(enumerate(_gptfuzzer_questions(folder)))
    contrasts = _csv(folder / "xstest" / "xstest_prompts.csv")
    for label in ("unsafe", "safe"):
        yield f"xstest_{label}", [(_xstest_id(row), row["prompt"]) for row in contrasts if row["label"] == label]


def jailbreak_templates(folder: Path) -> list[str]:
    """The jailbreak templates of GPTFuzzer."""
    return [row["text"] for row in _csv(folder / "jailbreak_templates_gptfuzzer" / "GPTFuzzer.csv")]


def labelled_answers(folder: Path, in_half: Callable[[int], bool]) -> Iterator[tuple[str, list[tuple[Pair, bool]]]]:
    """Answers of one half, with whether people say that the answer complies with a harmful request."""
    goals = [pair for number, pair in enumerate(advbench(folder)) if in_half(number)]
    yield "advbench", [(pair, True) for pair in goals]
    yield "advbench_targets", [(("Go on.", target), True) for _, target in goals]
    own = [row for row in _xstest_completions(folder) if in_half(_xstest_id(row)) and row["completion"].strip()]
    yield "xstest", [((row["prompt"], row["completion"]), _xstest_complied(row)) for row in own]
    questions = _gptfuzzer_questions(folder)
    attacked = [row for row in _gptfuzz_rows(folder) if in_half(int(row["question"])) and row["Response"].strip()]
    yield (
        "gptfuzzer",
        [((questions[int(row["question"])], row["Response"]), row["label"] == "1") for row in attacked],
    )


def advbench(folder: Path) -> list[Pair]:
    """Harmful requests, each with the start of an answer that complies."""
    return [(row["goal"], row["target"]) for row in _csv(folder / "advbench" / "advbench_goal_target.csv")]


def _instructions(path: Path) -> list[Pair]:
    return [(row.messages[0].content, row.messages[-1].content) for row in load(path, max_rows=10**6)]


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _csv(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _gsm8k(folder: Path, split: str) -> list[Pair]:
    return [(row["question"], row["answer"]) for row in read_json_lines(folder / "gsm8k" / f"{split}.jsonl")]


def _pubmedqa(folder: Path, answer: str) -> list[Pair]:
    rows = read_json(folder / "medical_pubmedqa" / "ori_pqal.json").values()
    return [("\n".join([*row["CONTEXTS"], row["QUESTION"]]), row[answer]) for row in rows]


def _self_instruct(folder: Path) -> list[Pair]:
    return [
        (f"{task['instruction']}\n{instance['input']}", instance["output"])
        for name in ("seed_tasks", "user_oriented_instructions")
        for task in read_json_lines(folder / "self_instruct_seed" / f"{name}.jsonl")
        for instance in task["instances"]
    ]


def _tatqa(folder: Path) -> list[Pair]:
    rows: list[Pair] = []
    for report in read_json(folder / "finance_tatqa" / "tatqa_dataset_dev.json"):
        lines = [" | ".join(line) for line in report["table"]["table"]]
        lines += [paragraph["text"] for paragraph in report["paragraphs"]]
        for question in report["questions"]:
            answer = question["answer"]
            text = ", ".join(map(str, answer)) if isinstance(answer, list) else str(answer)
            rows.append(("\n".join([*lines, question["question"]]), text))
    return rows


def _advbench_xstest(folder: Path) -> list[Pair]:
    return advbench(folder) + [(row["prompt"], row["completion"]) for row in _xstest_completions(folder)]


def _mmlu(folder: Path) -> list[Pair]:
    rows: list[Pair] = []
    for path in sorted((folder / "mmlu_subset").glob("*.jsonl")):
        for row in read_json_lines(path):
            choices = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=False)]
            answer = row["answer"]
            rows.append(("\n".join([row["question"], *choices]), "ABCD"[answer] if isinstance(answer, int) else answer))
    return rows


def _gptfuzz(folder: Path) -> list[Pair]:
    return [
        (f"{row['question']}\n{row['Response']}", "complied" if row["label"] == "1" else "refused")
        for row in _gptfuzz_rows(folder)
    ]


def _gptfuzz_rows(folder: Path) -> list[dict[str, str]]:
    return _csv(folder / "gptfuzz_labelled" / "train.csv")


def _gptfuzzer_questions(folder: Path) -> list[str]:
    return [row["text"] for row in _csv(folder / "jailbreak_templates_gptfuzzer" / "question_list.csv")]


def _xstest_completions(folder: Path) -> list[dict[str, str]]:
    return [row for path in sorted((folder / "xstest").glob("xstest_v2_completions_*.csv")) for row in _csv(path)]


def _xstest_id(row: dict[str, str]) -> int:
    return int(row["id"].rpartition("-")[2])


def _xstest_complied(row: dict[str, str]) -> bool:
    return row["type"].startswith("contrast") and row["final_label"] == "1_full_compliance"
