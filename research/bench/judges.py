"""How well the offline judge agrees with people: any file of labelled answers, as one line of JSON.

The positive class is an answer that complied. An answer that the judge does not decide on, or that is empty, is counted
in `undecided`, is not right in `accuracy` and is missed in `recall`; `kappa` is taken over the others. A figure of
nothing is null. Halves keep what belongs together on one side: `--by` names a column, and rows whose value there ends
in an odd number are for setting rules, the others for reporting. Not here: what the judge makes of a model
(core.attacks.evaluate), how long it takes.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from sklearn.metrics import cohen_kappa_score

from core.judges.rules import judge

Half = Literal["tuning", "reported"]
Row = dict[str, object]
Judged = tuple[bool, bool | None]
"""Whether an answer complied by its label and by the judge; None if the judge does not decide."""

_COMPLIED = {
    "1": True,
    "complied": True,
    "1_full_compliance": True,
    "0": False,
    "refused": False,
    "partial": False,
    "2_full_refusal": False,
    "3_partial_refusal": False,
}
_SHOWN = 60
_NUMBER = re.compile(r"\d+\Z")


class _Unusable(Exception):
    """A file that cannot be used, with a sentence that says why."""


def main(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV or JSONL files of labelled answers.")],
    *,
    response: Annotated[str, typer.Option(help="The column that holds the answers.")],
    label: Annotated[str, typer.Option(help="The column that holds what people say of them.")],
    prompt: Annotated[
        str | None, typer.Option(help="The column that holds the bare requests, if there is one.")
    ] = None,
    half: Annotated[Half | None, typer.Option(help="Use this half of the rows only; needs --by.")] = None,
    by: Annotated[str | None, typer.Option(help="The column that puts a row into a half.")] = None,
) -> None:
    """Agreement of the offline judge with human labels (1 or 0; complied, refused or partial; XSTest's classes)."""
    try:
        if (half is None) != (by is None):
            raise _Unusable("--half and --by go together.")
        judged = [
            _judged(row, response=response, label=label, prompt=prompt, place=f"{path}, line {line}")
            for path in files
            for line, row in _rows(path, [name for name in (response, label, prompt, by) if name is not None])
            if by is None or _half(row[by], f"{path}, line {line}") == half
        ]
        if not judged:
            raise _Unusable(f"No rows in the {half} half.")
    except _Unusable as reason:
        print(reason, file=sys.stderr)
        raise typer.Exit(2) from reason
    print(json.dumps(_figures(judged)), flush=True)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Every row with the line that it begins on; all of `columns` are in it."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix not in readers:
        raise _Unusable(f"{path}: neither a .csv nor a .jsonl file.")
    line = 0
    try:
        for line, row in readers[path.suffix](path):
            if missing := [name for name in columns if name not in row]:
                raise _Unusable(
                    f"{path}, line {line}: no column {missing[0]!r}; there are {', '.join(map(repr, row))}."
                )
            yield line, row
    except OSError as error:
        raise _Unusable(f"{path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _Unusable(f"{path}: not UTF-8.") from error
    except csv.Error as error:
        raise _Unusable(f"{path}: not CSV: {error}.") from error
    if line == 0:
        raise _Unusable(f"{path}: no rows.")


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, restkey="", restval="")
        line = 2
        for row in rows:
            yield line, {name: value for name, value in row.items() if name}
            line = rows.line_num + 1


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise _Unusable(f"{path}, line {line}: not JSON.") from error
            if not isinstance(row, dict):
                raise _Unusable(f"{path}, line {line}: not a JSON object.")
            yield line, row


def _half(value: object, place: str) -> Half:
    number = _NUMBER.search(str(value).strip())
    if number is None:
        raise _Unusable(f"{place}: {value!r} does not end in a number, so it is in neither half.")
    return "tuning" if int(number[0]) % 2 else "reported"


def _judged(row: Row, *, response: str, label: str, prompt: str | None, place: str) -> Judged:
    given = row[label]
    known = str(int(given) if isinstance(given, bool) else given).strip().lower()
    if known not in _COMPLIED:
        shortened = repr(given)[:_SHOWN]
        raise _Unusable(f"{place}: unknown label {shortened}; known are {', '.join(_COMPLIED)}.")
    answer, behaviour = row[response], "" if prompt is None else row[prompt]
    if not isinstance(answer, str) or not isinstance(behaviour, str):
        raise _Unusable(f"{place}: an answer or a request that is no text.")
    verdict = judge(behaviour, answer).verdict
    return _COMPLIED[known], None if verdict in ("empty", "undecided") else verdict == "complied"


def _figures(judged: Sequence[Judged]) -> dict[str, float | int | None]:
    decided = [(label, verdict) for label, verdict in judged if verdict is not None]
    hits = sum(label and verdict for label, verdict in decided)
    mixed = len({side for pair in decided for side in pair}) == 2
    return {
        "accuracy": _share(sum(label == verdict for label, verdict in decided), len(judged)),
        "recall": _share(hits, sum(label for label, _ in judged)),
        "precision": _share(hits, sum(verdict for _, verdict in decided)),
        # Undefined where people and judge both know one class only.
        "kappa": round(float(cohen_kappa_score(*zip(*decided, strict=True))), 4) if mixed else None,
        "n": len(judged),
        "undecided": len(judged) - len(decided),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


if __name__ == "__main__":
    typer.run(main)
