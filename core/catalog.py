"""The server's list: base models, judge models, prompt sets and benchmarks that jobs may name.

The list is a TOML file named by `SECURETUNE_MODELS` with one table per entry, such as `[judges.house]`: docs/models.md
and docs/evaluation.md have examples. Relative paths start at its folder. The testbed is always listed.

Covers: reading the list and looking up entries. Not here: the files of a model (core.modelfiles), rules about orders
(core.orders.check), downloads (core.lm.files, core.data.files), uploaded prompt sets (core.db.prompt_sets).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import InvalidInput, InvalidModel
from core.modelfiles import check_files
from core.schemas.base import Frozen
from core.schemas.job import JobSpec, PromptFile
from core.schemas.judges import JudgeEntry, ModelJudgeOptions
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
    """Everything that jobs may name, by name."""

    models: Mapping[str, BaseModelEntry] = {}
    """Base models that may be tuned."""
    judges: Mapping[str, JudgeEntry] = {}
    """Models that may judge answers."""
    prompt_sets: Mapping[str, PromptSetEntry] = {}
    """Prompt sets, in addition to uploaded ones."""
    benchmarks: Mapping[str, BenchmarkEntry] = {}
    """Benchmarks for task performance."""


def read(path: Path | None) -> Catalog:
    """Read the list, to which the testbed is added.

    Raises:
        InvalidModel: code `invalid_catalog`; the file is missing or invalid.
    """
    if path is None:
        return Catalog(models={TESTBED.name: TESTBED})
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        _complete(tables, path)
        listed = Catalog.model_validate(tables)
    except ValidationError as error:
        raise _invalid(path, "; ".join(map(_describe, error.errors()))) from error
    except OSError as error:
        raise _invalid(path, f"it cannot be opened ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise _invalid(path, str(error)) from error
    return listed.model_copy(update={"models": {TESTBED.name: TESTBED, **listed.models}})


def _complete(tables: Mapping[str, object], path: Path) -> None:
    """Add its name to each entry, and make paths absolute."""
    folder = path.absolute().parent  # processes that read the list have different working directories
    for entries in tables.values():
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if not isinstance(entry, dict):
                continue
            for source in entry.values():
                if isinstance(source, dict) and isinstance(source.get("path"), str):
                    source["path"] = str(folder / source["path"])
            entry["name"] = name


def _describe(error: ErrorDetails) -> str:
    """What is wrong and where. Values are not repeated, because they may contain passwords."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        return f"[{place}] is not a known table: use {', '.join(Catalog.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {'unknown key' if error['type'] == 'extra_forbidden' else message}"


def _invalid(path: Path, why: str) -> InvalidModel:
    return InvalidModel(f"The server's list {path.name} (SECURETUNE_MODELS) is invalid: {why}", code="invalid_catalog")


def find(entries: Mapping[str, BaseModelEntry], name: str) -> BaseModelEntry:
    """The entry of a base model. The files of a local folder are checked.

    Raises:
        InvalidModel: code `model_not_allowed`, or a code of `core.modelfiles.check_files`.
    """
    entry = entries.get(name)
    if entry is None:
        message = (
            f"This server does not allow the base model {name!r}. Allowed base models: {', '.join(sorted(entries))}."
        )
        raise InvalidModel(message, code="model_not_allowed", param="base_model")
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
            "none: choose the method lora, or remove the safeguard.",
            code="safeguard_needs_adapter",
            param="training.method",
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
    if isinstance(entry.unaligned_base, FolderSource) and entry.unaligned_base.path.is_dir():
        check_files(f"{entry.name} (its unaligned_base)", entry.unaligned_base.path, tokenizer=False)


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
