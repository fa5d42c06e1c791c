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

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import InvalidInput, InvalidModel
from core.schemas.base import Frozen
from core.schemas.job import JobSpec, PromptFile
from core.schemas.judges import JudgeEntry, RulesJudge
from core.schemas.models import BaseModelEntry, FolderSource
from core.schemas.prompts import ChosenPrompts, PromptSetEntry, PromptSource, Use, is_uploaded
from core.schemas.quality import BenchmarkEntry
from core.schemas.safeguards import SafeguardOptions

TESTBED = BaseModelEntry(
    name="testbed",
    source=FolderSource(path=Path(__file__).parents[1] / "testbed" / "model"),
    learning_rate=4e-3,
    description="A 1.7 M-parameter aligned chat model that ships with securetune, to try the whole service on a CPU.",
)


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
    """Check that the safeguards of every run work with this base model and this training method.

    Raises:
        InvalidModel: code `no_unaligned_base`, or what `check_files` raises for its folder.
        InvalidInput: code `safeguard_needs_adapter`.
    """
    for run in spec.runs:
        for guard in run.safeguards:
            _check_safeguard(entry, spec, run.label, guard)


def _check_safeguard(entry: BaseModelEntry, spec: JobSpec, label: str, guard: SafeguardOptions) -> None:
    if spec.training.method == "full" and guard.needs_adapter:
        raise InvalidInput(
            f"The safeguard {guard.name} of run {label!r} works on an adapter, and the method full trains "
            "none: choose the method lora, or leave the safeguard out.",
            code="safeguard_needs_adapter",
            param="training.method",
        )
    if not guard.needs_unaligned_base:
        return
    if entry.unaligned_base is None:
        raise InvalidModel(
            f"The safeguard {guard.name} of run {label!r} needs the model that {entry.name!r} was aligned "
            "from, and the server's list of models names none: give the model's entry an unaligned_base, choose "
            "another base model, or leave the safeguard out.",
            code="no_unaligned_base",
            param="base_model",
        )
    if isinstance(entry.unaligned_base, FolderSource) and entry.unaligned_base.path.is_dir():
        check_files(f"{entry.name} (its unaligned_base)", entry.unaligned_base.path)


def judges(listed: Catalog, spec: JobSpec) -> tuple[JudgeEntry, ...]:
    """Entries of the judge models that a checked order names, each once."""
    names = [judge.model for judge in spec.security.judges if not isinstance(judge, RulesJudge)]
    return tuple(listed.judges[name] for name in dict.fromkeys(names))


def prompt_files(listed: Catalog, prompts: PromptSource) -> dict[Use, PromptFile]:
    """Where the listed sets are that a checked order names; uploaded ones are left out."""
    found = {use: listed.prompt_sets[name] for use, name in listed_prompts(prompts).items()}
    return {use: PromptFile(name=entry.name, layout=entry.layout, source=entry.source) for use, entry in found.items()}


def listed_prompts(prompts: PromptSource) -> dict[Use, str]:
    """Names of the listed sets that an order chooses, by use; uploaded ones are left out."""
    named = prompts.named if isinstance(prompts, ChosenPrompts) else {}
    return {use: name for use, name in named.items() if not is_uploaded(name)}


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
