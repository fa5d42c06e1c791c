"""The server's list: base models, judge models, prompt sets and benchmarks that jobs may name.

The list is a TOML file, `models.toml` in the state folder or the one that `SECURETUNE_MODELS` names, with one table per
entry, such as `[judges.house]`: docs/models.md and docs/evaluation.md have examples. Relative paths start at its
folder. The testbed is always listed.

Covers: reading the list and looking up entries. Not here: the files of a model (core.modelfiles), rules about orders
(core.orders.check), downloads (core.lm.files, core.data.files), uploaded prompt sets (core.db.prompt_sets).
"""

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import InvalidInput, InvalidModel
from core.modelfiles import check_file, check_files
from core.schemas.base import Frozen
from core.schemas.job import JobSpec, PromptFile
from core.schemas.judges import JudgeEntry, ModelJudgeOptions
from core.schemas.models import BaseModelEntry, FolderSource, GgufSource, ModelSource
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
    """Everything that jobs may name, by name."""

    models: Mapping[str, BaseModelEntry] = {}
    """Base models that may be tuned."""
    judges: Mapping[str, JudgeEntry] = {}
    """Models that may judge answers."""
    prompt_sets: Mapping[str, PromptSetEntry] = {}
    """Prompt sets, in addition to uploaded ones."""
    benchmarks: Mapping[str, BenchmarkEntry] = {}
    """Benchmarks for task performance."""


def read(path: Path | None, converted: Path = Path("converted")) -> Catalog:
    """Read the list, to which the testbed is added. It is read again only if the file has changed.

    `converted` is the folder for converted GGUF models; like all paths, a relative one starts at the list's folder.

    Raises:
        InvalidModel: code `invalid_catalog`; the file is missing or invalid.
    """
    if path is None:
        return Catalog(models={TESTBED.name: TESTBED})
    try:
        status = path.stat()
    except OSError as error:
        raise _invalid(path, f"it cannot be opened ({error.strerror})") from error
    return _read(path, converted, (status.st_size, status.st_mtime_ns, status.st_ino))


@lru_cache(maxsize=4)  # the API looks at the list for every request
def _read(path: Path, converted: Path, _version: tuple[int, int, int]) -> Catalog:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        _complete(tables, path, converted)
        listed = Catalog.model_validate(tables)
    except ValidationError as error:
        raise _invalid(path, "; ".join(map(_describe, error.errors()))) from error
    except OSError as error:
        raise _invalid(path, f"it cannot be opened ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise _invalid(path, str(error)) from error
    return listed.model_copy(update={"models": {TESTBED.name: TESTBED, **listed.models}})


def _complete(tables: Mapping[str, object], path: Path, converted: Path) -> None:
    """Add its name to each entry and the folder for conversions to GGUF sources, and make paths absolute."""
    folder = path.absolute().parent  # processes that read the list have different working directories
    for entries in tables.values():
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if not isinstance(entry, dict):
                continue
            for source in entry.values():
                if not isinstance(source, dict):
                    continue
                if source.get("kind") == "gguf":
                    source.setdefault("cache", str(converted))
                for field in ("path", "cache"):
                    if isinstance(source.get(field), str):
                        source[field] = str(folder / source[field])
                if isinstance(source.get("paths"), list):
                    source["paths"] = [
                        str(folder / each) if isinstance(each, str) else each for each in source["paths"]
                    ]
            entry["name"] = name


def _describe(error: ErrorDetails) -> str:
    """What is wrong and where. Values are not repeated, because they may contain passwords."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        return f"[{place}] is not a known table: use {', '.join(Catalog.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {'unknown key' if error['type'] == 'extra_forbidden' else message}"


def _invalid(path: Path, why: str) -> InvalidModel:
    return InvalidModel(f"The server's list {path.name} is invalid: {why}", code="invalid_catalog")


def find(entries: Mapping[str, BaseModelEntry], name: str) -> BaseModelEntry:
    """The entry of a base model. Files on this machine are checked.

    Raises:
        InvalidModel: code `model_not_allowed`, or a code of docs/models.md.
    """
    entry = entries.get(name)
    if entry is None:
        message = (
            f"This server does not allow the base model {name!r}. Allowed base models: {', '.join(sorted(entries))}."
        )
        raise InvalidModel(message, code="model_not_allowed", param="base_model")
    _check_source(entry.name, entry.source, own_template=entry.chat_template == "own")
    return entry


def _check_source(name: str, source: ModelSource, *, tokenizer: bool = True, own_template: bool = True) -> None:
    """Check files that this machine has; others are checked by the worker."""
    if isinstance(source, FolderSource) and source.path.is_dir():
        check_files(name, source.path, tokenizer=tokenizer)
    if isinstance(source, GgufSource) and any(path.exists() for path in source.paths):
        check_file(name, source.paths, tokenizer=tokenizer, own_template=own_template)


def check_runs(entry: BaseModelEntry, spec: JobSpec) -> None:
    """Check that the safeguards of every run work with this base model and these training settings.

    Raises:
        InvalidModel: code `no_unaligned_base`, or what `check_files` raises for its folder.
        InvalidInput: code `safeguard_needs_adapter` or `safeguard_excludes_patience`.
    """
    for run in spec.runs:
        for guard in run.safeguards:
            _check_safeguard(entry, spec, run.label, guard)


def _check_safeguard(entry: BaseModelEntry, spec: JobSpec, label: str, guard: SafeguardOptions) -> None:
    if spec.training.method == "full" and guard.needs_adapter:
        raise InvalidInput(
            f"The safeguard {guard.name} of run {label!r} works on an adapter, and the method full trains "
            "none: choose the method lora, or remove the safeguard.",
            code="safeguard_needs_adapter",
            param="training.method",
        )
    if spec.training.patience is not None and guard.excludes_patience:
        raise InvalidInput(
            f"The safeguard {guard.name} of run {label!r} decides when training ends, and so does training.patience: "
            "remove one of them.",
            code="safeguard_excludes_patience",
            param="training.patience",
        )
    if not guard.needs_unaligned_base:
        return
    if entry.unaligned_base is None:
        raise InvalidModel(
            f"The safeguard {guard.name} of run {label!r} needs the model that {entry.name!r} was aligned "
            "from, and the server's list of models names none: give the model's entry an unaligned_base, choose "
            "another base model, or remove the safeguard.",
            code="no_unaligned_base",
            param="base_model",
        )
    _check_source(f"{entry.name} (its unaligned_base)", entry.unaligned_base, tokenizer=False)


def judges(listed: Catalog, spec: JobSpec) -> tuple[JudgeEntry, ...]:
    """Entries of the judge models that a checked order names, without duplicates."""
    names = [judge.model for judge in spec.security.judges if isinstance(judge, ModelJudgeOptions)]
    return tuple(listed.judges[name] for name in dict.fromkeys(names))


def prompt_files(listed: Catalog, prompts: PromptSource) -> dict[Use, PromptFile]:
    """Files of the listed prompt sets that a checked order names, by use; uploaded sets are left out."""
    found = {use: listed.prompt_sets[name] for use, name in listed_prompts(prompts).items()}
    return {use: PromptFile(name=entry.name, layout=entry.layout, source=entry.source) for use, entry in found.items()}


def listed_prompts(prompts: PromptSource) -> dict[Use, str]:
    """Names of the listed sets that an order chooses, by use; uploaded ones are left out."""
    named = prompts.named if isinstance(prompts, ChosenPrompts) else {}
    return {use: name for use, name in named.items() if not is_uploaded(name)}
