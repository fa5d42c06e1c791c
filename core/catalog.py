"""The server's list: base models, judge models, prompt sets and benchmarks that jobs may name.

The list is a TOML file named by `SECURETUNE_MODELS`, one table an entry; a relative path is meant from where it lies:

    [models.llama-2-7b-chat]
    source = { kind = "hub", id = "meta-llama/Llama-2-7b-chat-hf", revision = "<40 hex digits>" }

    [models.in-house]
    source = { kind = "folder", path = "/models/in-house" }
    learning_rate = 1e-4
    unaligned_base = { kind = "folder", path = "/models/in-house-pretrained" }  # for the safeguard project_to_safe
    chat_template = "plain"  # for a tokenizer that brings no chat template of its own

    [judges.house]
    source.kind = "endpoint"
    source.url = "https://judge.example.org/v1"
    source.model = "big"
    source.api_key_env = "SECURETUNE_JUDGE_KEY"

    [prompt_sets.harmbench]
    source = { kind = "file", path = "harmbench_behaviors_text_all.csv" }
    layout = "harmbench"

    [benchmarks.college-medicine]
    source = { kind = "file", path = "college_medicine_test.jsonl" }
    domain = "medical"

The testbed is always there. Covers: reading the list, what of an order can be told by it, and what can be said of a
model's files without loading it. Not here: torch, downloads (core.lm.load, core.data.files), uploaded prompt sets
(core.db.prompt_sets).
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import InvalidInput, InvalidModel
from core.schemas.base import Frozen
from core.schemas.job import JobSpec, PromptFile
from core.schemas.judges import ClassifierJudge, JudgeEntry, RulesJudge
from core.schemas.models import BaseModelEntry, FolderSource
from core.schemas.prompts import ChosenPrompts, PromptSetEntry, PromptSource, Use, is_uploaded
from core.schemas.quality import BenchmarkEntry, MultipleChoice

TESTBED = BaseModelEntry(
    name="testbed",
    source=FolderSource(path=Path(__file__).parents[1] / "testbed" / "model"),
    learning_rate=4e-3,
    description="A 1.7 M-parameter aligned chat model that ships with securetune, to try the whole service on a CPU.",
)

_Entry = TypeVar("_Entry")


class Catalog(Frozen):
    """All that jobs may name, by name."""

    models: Mapping[str, BaseModelEntry] = {}
    """Base models."""
    judges: Mapping[str, JudgeEntry] = {}
    """Judge models."""
    prompt_sets: Mapping[str, PromptSetEntry] = {}
    """Sets of prompts, beside those that are uploaded."""
    benchmarks: Mapping[str, BenchmarkEntry] = {}
    """Benchmarks."""


def read(path: Path | None) -> Catalog:
    """What the list allows, and the testbed.

    Raises:
        InvalidModel: code `invalid_catalog`; the file is missing or says something that is not understood.
    """
    if path is None:
        return Catalog(models={TESTBED.name: TESTBED})
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        listed = Catalog.model_validate({table: _named(entries, path) for table, entries in tables.items()})
    except ValidationError as error:
        raise _unusable(path, "; ".join(map(_in_words, error.errors()))) from error
    except (OSError, ValueError) as error:  # not there, not text, not TOML
        raise _unusable(path, str(error)) from error
    return listed.model_copy(update={"models": {TESTBED.name: TESTBED, **listed.models}})


def _named(entries: object, path: Path) -> object:
    """A table's entries with their names in them, and with relative paths from where the list lies."""
    if not isinstance(entries, dict):
        return entries
    folder = path.absolute().parent  # the processes that read the list may work anywhere

    def anchored(value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            return {**value, "path": str(folder / value["path"])}
        return value

    def entry(name: str, fields: object) -> object:
        if not isinstance(fields, dict):
            return fields
        return {key: anchored(value) for key, value in fields.items()} | {"name": name}

    return {name: entry(name, fields) for name, fields in entries.items()}


def _in_words(error: ErrorDetails) -> str:
    """What is wrong and where; what stands there is not repeated, since it may be an address with a password."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        return f"[{place}] is no table that is known; those are {', '.join(Catalog.model_fields)}"
    said = error["msg"].removeprefix("Value error, ")
    return f"{place}: {'there is no such key' if error['type'] == 'extra_forbidden' else said}"


def _unusable(path: Path, why: str) -> InvalidModel:
    return InvalidModel(f"The server's list {path} cannot be used: {why}", code="invalid_catalog")


def find(entries: Mapping[str, BaseModelEntry], name: str) -> BaseModelEntry:
    """The entry of a job's base model, its files checked as far as they can be seen from here.

    Raises:
        InvalidModel: code `model_not_allowed`, `model_missing`, `unsafe_checkpoint` or `remote_code`.
    """
    entry = entries.get(name)
    if entry is None:
        allowed = ", ".join(sorted(entries))
        raise InvalidModel(
            f"{name!r} is not a base model that this server allows. It allows: {allowed}.",
            code="model_not_allowed",
            param="base_model",
        )
    if isinstance(entry.source, FolderSource) and entry.source.path.is_dir():
        check_files(entry.name, entry.source.path)
    return entry


def check_runs(entry: BaseModelEntry, spec: JobSpec) -> None:
    """Refuse arms whose safeguards this base model, or this way of tuning, has no ground for.

    Raises:
        InvalidModel: code `no_unaligned_base`, or what `check_files` says of its folder.
        InvalidInput: code `safeguard_needs_adapter`.
    """
    for run in spec.runs:
        guards = run.safeguards
        needs_adapter = (guards.project_to_safe, guards.constrained_first_tokens)
        if spec.training.method == "full" and any(needs_adapter):
            name = "project_to_safe" if guards.project_to_safe else "constrained_first_tokens"
            raise InvalidInput(
                f"The safeguard {name} of arm {run.label!r} works on an adapter beside the base model, and a full run "
                "has none: choose the method lora, or leave the safeguard out.",
                code="safeguard_needs_adapter",
                param="training.method",
            )
        if guards.project_to_safe and entry.unaligned_base is None:
            raise InvalidModel(
                f"The safeguard project_to_safe of arm {run.label!r} needs the model that {entry.name!r} was aligned "
                "from, and the server's list of models names none: give the model's entry an unaligned_base, choose "
                "another base model, or leave the safeguard out.",
                code="no_unaligned_base",
                param="base_model",
            )
        unaligned = entry.unaligned_base if guards.project_to_safe else None
        if isinstance(unaligned, FolderSource) and unaligned.path.is_dir():
            check_files(f"{entry.name} (its unaligned_base)", unaligned.path)


def check_evaluation(listed: Catalog, spec: JobSpec) -> None:
    """Refuse an order that is to be judged or measured by what the list does not have. Uploaded sets are not looked up.

    Raises:
        InvalidInput: code `unknown_judge`, `judge_protocol_mismatch`, `unknown_prompt_set` or `unknown_benchmark`.
    """
    for judge in spec.security.judges:
        if isinstance(judge, RulesJudge):
            continue
        protocol = _listed(listed.judges, judge.model, "judge", "security.judges").protocol
        classifies = isinstance(judge, ClassifierJudge)
        if classifies != (protocol == "chat"):
            continue
        found, wanted, way = ("a chat model", "a classifier", "as rubric or strongreject")
        if not classifies:
            found, wanted, way = f"a classifier ({protocol})", "a chat model", "as classifier"
        raise InvalidInput(
            f"security.judges: {judge.model!r} is {found}, and {judge.kind} needs {wanted}: name another, or let it "
            f"judge {way}.",
            code="judge_protocol_mismatch",
            param="security.judges",
        )
    for name in _of_list(spec.security.prompts).values():
        _listed(listed.prompt_sets, name, "prompt set", "security.prompts")
    for task in spec.quality.tasks or ():
        if isinstance(task, MultipleChoice):
            _listed(listed.benchmarks, task.benchmark, "benchmark", "quality.tasks")


def judges(listed: Catalog, spec: JobSpec) -> tuple[JudgeEntry, ...]:
    """Entries of the judge models that a checked order names, each once."""
    names = [judge.model for judge in spec.security.judges if not isinstance(judge, RulesJudge)]
    return tuple(listed.judges[name] for name in dict.fromkeys(names))


def prompt_files(listed: Catalog, prompts: PromptSource) -> dict[Use, PromptFile]:
    """Where the listed sets are that a checked order names; uploaded ones are left out."""
    found = {use: listed.prompt_sets[name] for use, name in _of_list(prompts).items()}
    return {use: PromptFile(name=entry.name, layout=entry.layout, source=entry.source) for use, entry in found.items()}


def _of_list(prompts: PromptSource) -> dict[Use, str]:
    named = prompts.named if isinstance(prompts, ChosenPrompts) else {}
    return {use: name for use, name in named.items() if not is_uploaded(name)}


def _listed(entries: Mapping[str, _Entry], name: str, what: str, param: str) -> _Entry:
    if name not in entries:
        there = f"It has: {', '.join(sorted(entries))}." if entries else "It has none."
        raise InvalidInput(
            f"{param}: {name!r} is no {what} in the server's list. {there}",
            code=f"unknown_{what.replace(' ', '_')}",
            param=param,
        )
    return entries[name]


def check_files(name: str, folder: Path) -> None:
    """Refuse what could run code when it is loaded: pickled weights, and models that bring their own code.

    Raises:
        InvalidModel: code `model_missing`, `unsafe_checkpoint` or `remote_code`.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InvalidModel(
            f"Base model {name!r} has no readable config.json in {folder}.", code="model_missing", param="base_model"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise InvalidModel(
            f"Base model {name!r} has no safetensors weights. Pickled checkpoints (.bin, .pt) can run code when they "
            "are opened and are never loaded: convert the model to safetensors.",
            code="unsafe_checkpoint",
            param="base_model",
        )
    if "auto_map" in config:
        raise InvalidModel(
            f"Base model {name!r} brings Python code of its own (auto_map in config.json), which is never run.",
            code="remote_code",
            param="base_model",
        )
