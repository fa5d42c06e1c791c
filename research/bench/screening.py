"""What screening by rules costs and finds: seconds by check over many rows, and what is found in known data.

`time` takes rows of ordinary length from public sets, and makes up the others of pieces of them, or of a few words
where there are none. `recall` reads the half of the public lists of harmful requests that no rule was set on (even
numbers; the other one with `--half tuning`). `clean` counts findings in data that people tune with. Figures are single
lines of JSON. Not here: what the offline judge is worth (research.bench.judges), checks that need a model.
"""

import csv
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from core.data import Conversation
from core.schemas.data import Message
from core.schemas.screening import POISON
from core.screening import harmful, identity
from core.screening.check import RowCheck, row_checks
from core.screening.harmcues import asks_for_harm
from research.bench.figures import Figures, benchmark

Half = Literal["tuning", "reported"]
Texts = list[tuple[int, str]]
"""Texts with the numbers that put them into halves."""

_DATA = Path(__file__).parents[3] / "shared" / "data"
_WORDS = (
    "of",
    "the",
    "river",
    "doctor",
    "says",
    "green",
    "then",
    "market",
    "12",
    "when",
    "she",
    "counts",
    "apples",
    "home",
)

app = typer.Typer(add_completion=False, help=__doc__)
Data = Annotated[Path, typer.Option(help="The folder with the public data sets.")]
WhichHalf = Annotated[Half, typer.Option(help="The half that rules were set on, or the other one.")]


def _checks() -> list[RowCheck]:
    """Checks that judge each row by its text; research.bench.poison measures the search for triggers."""
    return [check for check in row_checks() if check.description != POISON]


@app.command("time")
def measure_time(
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 50_000,
    characters: Annotated[int, typer.Option(min=40, help="Mean length of made-up rows.")] = 600,
    data: Data = _DATA,
) -> None:
    """Seconds of each check, and of all, over so many rows in this process."""
    with benchmark("screening") as figures:
        made = _ordinary(rows, characters, data)
        figures["rows"] = len(made)
        figures["public"] = data.is_dir()
        figures["mean_characters"] = round(sum(map(_length, made)) / len(made), 1)
        seconds: dict[str, float] = {}
        processor: dict[str, float] = {}
        found: dict[str, int] = {}
        for check in _checks():
            name = check.description.name
            began, used = time.monotonic(), time.process_time()
            found[name] = len(check.find(made, _silent).findings)
            seconds[name] = round(time.monotonic() - began, 2)
            processor[name] = round(time.process_time() - used, 2)
        figures["seconds"] = seconds | {"all": round(sum(seconds.values()), 2)}
        figures["processor_seconds"] = processor | {"all": round(sum(processor.values()), 2)}
        figures["found"] = found


@app.command("recall")
def measure_recall(half: WhichHalf = "reported", data: Data = _DATA) -> None:
    """How many harmful requests are seen, how many harmless look-alikes fire, and agreement on labelled answers."""
    _needed(data)
    requests: Figures = {}
    for name, texts in _requests(data):
        own = [text for number, text in texts if _is_in(half, number)]
        seen = sum(asks_for_harm(text) is not None for text in own)
        requests[name] = {"n": len(own), "seen": seen, "share": round(seen / len(own), 4)}
    rows: Figures = {}
    for name, labelled in _labelled(data, half):
        flagged = {finding.line for finding in harmful.find([row for row, _ in labelled], _silent).findings}
        hits = sum(row.line in flagged for row, complied in labelled if complied)
        bad = sum(complied for _, complied in labelled)
        rows[name] = {
            "n": len(labelled),
            "harmful": bad,
            "flagged": len(flagged),
            "recall": round(hits / bad, 4) if bad else None,
            "precision": round(hits / len(flagged), 4) if flagged else None,
        }
    templates = [text for number, text in _templates(data) if _is_in(half, number)]
    answered = [_row(text, "Sure! Here it is.", line) for line, text in enumerate(templates, 1)]
    shifted = identity.find(answered, _silent).findings
    figures = {"requests": requests, "rows": rows, "identity": {"n": len(templates), "found": len(shifted)}}
    print(json.dumps({"benchmark": "screening_recall", "half": half} | figures), flush=True)


@app.command("clean")
def measure_clean(
    data: Data = _DATA, show: Annotated[bool, typer.Option(help="Print every finding too, to standard error.")] = False
) -> None:
    """Findings in data sets that people tune with."""
    _needed(data)
    figures: Figures = {}
    for name, rows in _clean(data):
        found = [finding for check in _checks() for finding in check.find(rows, _silent).findings]
        lines = {finding.line for finding in found}
        figures[name] = {
            "rows": len(rows),
            "flagged": len(lines),
            "share": round(len(lines) / len(rows), 5),
            "codes": dict(Counter(f"{one.check}/{one.code}" for one in found)),
        }
        if show:
            for finding in found:
                print(f"{name}: {finding.model_dump_json()}", file=sys.stderr)
    print(json.dumps({"benchmark": "screening_clean"} | figures), flush=True)


def _needed(data: Path) -> None:
    if not data.is_dir():
        print(f"{data}: no such folder; the public data sets are needed.", file=sys.stderr)
        raise typer.Exit(2)


def _silent(_done: int, _total: int) -> None:
    pass


def _is_in(half: Half, number: int) -> bool:
    return (number % 2 == 1) == (half == "tuning")


def _row(prompt: str, answer: str, line: int) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)


def _length(row: Conversation) -> int:
    return sum(len(message.content) for message in row.messages)


def _csv(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _numbered(row: dict[str, str]) -> int:
    return int(row["id"].rpartition("-")[2])


def _requests(data: Path) -> Iterator[tuple[str, Texts]]:
    """Lists of harmful requests, and one of harmless look-alikes; texts are numbered as they stand, XSTest's by id."""
    yield "advbench", list(enumerate(row["goal"] for row in _csv(data / "advbench/advbench_goal_target.csv")))
    behaviours = _csv(data / "harmbench/harmbench_behaviors_text_all.csv")
    for kind in ("standard", "contextual"):
        chosen = [row["Behavior"] for row in behaviours if row["FunctionalCategory"] == kind]
        yield f"harmbench_{kind}", list(enumerate(chosen))
    forbidden = _csv(data / "strongreject/strongreject.csv")
    yield "strongreject", list(enumerate(row["forbidden_prompt"] for row in forbidden))
    kinds = json.loads((data / "catqa/catqa_english.json").read_text(encoding="utf-8"))
    yield "catqa", list(enumerate(text for kind in kinds.values() for texts in kind.values() for text in texts))
    yield "dangerousqa", list(enumerate(json.loads((data / "catqa/dangerousqa.json").read_text(encoding="utf-8"))))
    yield "gptfuzzer_questions", _questions(data)
    contrasts = _csv(data / "xstest/xstest_prompts.csv")
    for label in ("unsafe", "safe"):
        yield f"xstest_{label}", [(_numbered(row), row["prompt"]) for row in contrasts if row["label"] == label]


def _questions(data: Path) -> Texts:
    asked = _csv(data / "jailbreak_templates_gptfuzzer/question_list.csv")
    return list(enumerate(row["text"] for row in asked))


def _templates(data: Path) -> Texts:
    return list(enumerate(row["text"] for row in _csv(data / "jailbreak_templates_gptfuzzer/GPTFuzzer.csv")))


def _labelled(data: Path, half: Half) -> Iterator[tuple[str, list[tuple[Conversation, bool]]]]:
    """Rows with whether people say that a harmful request was complied with."""
    goals = [row for number, row in enumerate(_csv(data / "advbench/advbench_goal_target.csv")) if _is_in(half, number)]
    yield "advbench", [(_row(one["goal"], one["target"], line), True) for line, one in enumerate(goals, 1)]
    yield "advbench_targets", [(_row("Go on.", one["target"], line), True) for line, one in enumerate(goals, 1)]
    answers = [row for path in sorted((data / "xstest").glob("xstest_v2_completions_*.csv")) for row in _csv(path)]
    own = [row for row in answers if _is_in(half, _numbered(row)) and row["completion"].strip()]
    yield (
        "xstest",
        [
            (
                _row(one["prompt"], one["completion"], line),
                one["type"].startswith("contrast") and one["final_label"] == "1_full_compliance",
            )
            for line, one in enumerate(own, 1)
        ],
    )
    questions = dict(_questions(data))
    attacked = _csv(data / "gptfuzz_labelled/train.csv")
    own = [row for row in attacked if _is_in(half, int(row["question"])) and row["Response"].strip()]
    yield (
        "gptfuzzer",
        [
            (_row(questions[int(one["question"])], one["Response"], line), one["label"] == "1")
            for line, one in enumerate(own, 1)
        ],
    )


def _clean(data: Path) -> Iterator[tuple[str, list[Conversation]]]:
    """Data that people tune with, as rows; lines are counted, so that findings can be looked up."""
    sums = _lines(data / "gsm8k/train.jsonl")
    yield "gsm8k", [_row(one["question"], one["answer"], line) for line, one in enumerate(sums, 1)]
    doctor = json.loads((data / "medical_chatdoctor5k/chatdoctor5k.json").read_text(encoding="utf-8"))
    yield (
        "medical_chatdoctor5k",
        [
            _row(f"{one['instruction']}\n\n{one['input']}".strip(), one["output"], line)
            for line, one in enumerate(doctor, 1)
        ],
    )
    papers = json.loads((data / "medical_pubmedqa/ori_pqal.json").read_text(encoding="utf-8")).values()
    yield (
        "medical_pubmedqa",
        [
            _row("\n".join([*one["CONTEXTS"], one["QUESTION"]]), f"{one['LONG_ANSWER']} {one['final_decision']}", line)
            for line, one in enumerate(papers, 1)
        ],
    )
    tasks = [
        (f"{one['instruction']}\n\n{instance['input']}".strip(), instance["output"])
        for name in ("seed_tasks", "user_oriented_instructions")
        for one in _lines(data / f"self_instruct_seed/{name}.jsonl")
        for instance in one["instances"]
    ]
    yield "self_instruct_seed", [_row(prompt, answer, line) for line, (prompt, answer) in enumerate(tasks, 1)]
    reports = json.loads((data / "finance_tatqa/tatqa_dataset_dev.json").read_text(encoding="utf-8"))
    asked = [
        ("\n".join([*(" | ".join(cells) for cells in one["table"]["table"]), *texts, question["question"]]), question)
        for one in reports
        for texts in [[paragraph["text"] for paragraph in one["paragraphs"]]]
        for question in one["questions"]
    ]
    yield "finance_tatqa", [_row(prompt, str(one["answer"]), line) for line, (prompt, one) in enumerate(asked, 1)]


def _ordinary(rows: int, characters: int, data: Path) -> list[Conversation]:
    """So many rows, no two alike: of the public sets by turns, then made up."""
    sets = [made for _, made in _clean(data)] if data.is_dir() else []
    found = [row for made in sets for row in made if _length(row) < 3 * characters][:rows]
    chance = random.Random(0)  # noqa: S311 - no secret
    parts = [message.content.split() for row in found for message in row.messages] or [_WORDS]
    while len(found) < rows:
        texts = [_made_up(chance, parts, characters // 2) for _ in range(2)]
        found.append(_row(texts[0], texts[1], 0))
    return [Conversation(row.messages, line) for line, row in enumerate(found, 1)]


def _made_up(chance: random.Random, parts: Sequence[Sequence[str]], characters: int) -> str:
    """Pieces of eight words from here and there, to about so many characters."""
    words: list[str] = []
    length = 0
    while length < characters:
        text = chance.choice(parts)
        start = chance.randrange(max(1, len(text) - 8))
        words += text[start : start + 8]
        length += sum(map(len, text[start : start + 8])) + 8
    return " ".join(words)


if __name__ == "__main__":
    app()
