"""The server's list of allowed base models, and what can be said of a model's files without loading it.

The list is a TOML file named by `SECURETUNE_MODELS`, one table a model:

    [models.llama-2-7b-chat]
    source = { kind = "hub", id = "meta-llama/Llama-2-7b-chat-hf", revision = "<40 hex digits>" }

    [models.in-house]
    source = { kind = "folder", path = "/models/in-house" }
    learning_rate = 1e-4
    unaligned_base = { kind = "folder", path = "/models/in-house-pretrained" }  # for the safeguard project_to_safe
    chat_template = "plain"  # for a tokenizer that brings no chat template of its own

The testbed is always there. Not here: torch, downloads (core.lm.load).
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from core.errors import InvalidInput, InvalidModel
from core.spec.job import JobSpec
from core.spec.models import BaseModelEntry, FolderSource, HubSource

TESTBED = BaseModelEntry(
    name="testbed",
    source=FolderSource(path=Path(__file__).parents[1] / "testbed" / "model"),
    learning_rate=4e-3,
    description="A 1.7 M-parameter aligned chat model that ships with securetune, to try the whole service on a CPU.",
)

_TABLES = TypeAdapter(dict[str, dict[str, JsonValue]])


def read(path: Path | None) -> Mapping[str, BaseModelEntry]:
    """The allowed models by name.

    Raises:
        InvalidModel: code `invalid_catalog`; the file is missing or says something that is not understood.
    """
    entries = {TESTBED.name: TESTBED}
    if path is None:
        return entries
    try:
        tables = _TABLES.validate_python(tomllib.loads(path.read_text()).get("models", {}))
        named = [
            _anchored(BaseModelEntry.model_validate({**table, "name": name}), path.absolute().parent)
            for name, table in tables.items()
        ]
    except (OSError, ValueError) as error:  # not there, not text, not TOML, not such a list
        raise InvalidModel(f"The model list {path} cannot be used: {error}", code="invalid_catalog") from error
    return entries | {entry.name: entry for entry in named}


def _anchored(entry: BaseModelEntry, folder: Path) -> BaseModelEntry:
    """A relative path is meant from where the list lies: the processes that read it may work anywhere."""

    def anchored(source: FolderSource | HubSource) -> FolderSource | HubSource:
        return FolderSource(path=folder / source.path) if isinstance(source, FolderSource) else source

    unaligned = entry.unaligned_base and anchored(entry.unaligned_base)
    return entry.model_copy(update={"source": anchored(entry.source), "unaligned_base": unaligned})


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


def check_arms(entry: BaseModelEntry, spec: JobSpec) -> None:
    """Refuse arms whose safeguards this base model, or this way of tuning, has no ground for.

    Raises:
        InvalidModel: code `no_unaligned_base`, or what `check_files` says of its folder.
        InvalidInput: code `safeguard_needs_adapter`.
    """
    for arm in spec.arms:
        guards = arm.safeguards
        needs_adapter = (guards.project_to_safe, guards.constrained_first_tokens)
        if spec.training.method == "full" and any(needs_adapter):
            name = "project_to_safe" if guards.project_to_safe else "constrained_first_tokens"
            raise InvalidInput(
                f"The safeguard {name} of arm {arm.label!r} works on an adapter beside the base model, and a full run "
                "has none: choose the method lora, or leave the safeguard out.",
                code="safeguard_needs_adapter",
                param="training.method",
            )
        if guards.project_to_safe and entry.unaligned_base is None:
            raise InvalidModel(
                f"The safeguard project_to_safe of arm {arm.label!r} needs the model that {entry.name!r} was aligned "
                "from, and the server's list of models names none: give the model's entry an unaligned_base, choose "
                "another base model, or leave the safeguard out.",
                code="no_unaligned_base",
                param="base_model",
            )
        unaligned = entry.unaligned_base if guards.project_to_safe else None
        if isinstance(unaligned, FolderSource) and unaligned.path.is_dir():
            check_files(f"{entry.name} (its unaligned_base)", unaligned.path)


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
