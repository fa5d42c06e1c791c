"""What lies in a model's folder: missing files, Git LFS pointers, links, pickled or GGUF weights, a second adapter.

Not here: the content of the files (core.modelfiles.config, weights, tokens).
"""

import re
from pathlib import Path

from core.modelfiles.reading import Problem

_USED = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Ends of the names of files that transformers may read."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""Files that transformers prefers to `model.safetensors` without mention."""
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)


def check_folder(folder: Path, *, tokenizer: bool) -> Problem | None:
    """The first problem of a folder's files that shows without parsing them. `tokenizer`: it must have one."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _USED)
    names = {path.name for path in folder.iterdir()}
    for path in files:
        if problem := _check_file(folder, path):
            return problem
    if adapter := next((name for name in _ADAPTERS if name in names), None):
        return _adapter(adapter, alone="config.json" not in names)
    if "config.json" not in names:
        return _no_config(names)
    return _check_weights(names) or (_check_tokenizer(names) if tokenizer else None)


def _check_file(folder: Path, path: Path) -> Problem | None:
    if not path.exists():
        return Problem(
            "weights_incomplete" if path.suffix == ".safetensors" else "model_unreadable",
            f"has a {path.name} that is a link to a file that does not exist. Copy the file itself into the folder.",
        )
    if not path.is_file():
        return None if path.is_dir() else Problem("model_unreadable", f"has a {path.name} that is not a regular file.")
    if path.is_symlink() and not _stays(folder, path):
        return Problem(
            "link_outside_folder",
            f"has a {path.name} that is a link to a file outside its folder, which is not followed. Copy the file "
            "itself into the folder.",
        )
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return Problem(
                "lfs_pointer",
                f"has a {path.name} that is only a Git LFS pointer: the file itself was never downloaded. Run "
                "`git lfs pull` in the folder, or download the model again.",
            )
    return None


def _stays(folder: Path, path: Path) -> bool:
    """Whether a link ends in its folder, or in the blobs of a hub cache whose snapshot the folder is."""
    home, target = folder.resolve(), path.resolve()
    blobs = home.parent.parent / "blobs"
    return target.is_relative_to(home) or (home.parent.name == "snapshots" and target.is_relative_to(blobs))


def _adapter(name: str, *, alone: bool) -> Problem:
    merge = "merge_and_unload() of peft and save_pretrained() make a model of both"
    if alone:
        return Problem("adapter_in_folder", f"is an adapter ({name}) without its base model: {merge}. List that one.")
    return Problem(
        "adapter_in_folder",
        f"also has an adapter in its folder ({name}). Tools differ in whether they load it, so the model that is "
        f"measured might not be the one that is served. Merge it first ({merge}), or remove the adapter's files.",
    )


def _no_config(names: set[str]) -> Problem:
    if any(name.endswith(".gguf") for name in names):
        return _gguf()
    return Problem("model_missing", "has no config.json in its folder. Copy all files of the model.")


def _gguf() -> Problem:
    return Problem(
        "gguf_unsupported",
        'has GGUF weights only. List the file itself: source = { kind = "gguf", path = ... }; or use the model in the '
        "Hugging Face layout with safetensors weights.",
    )


def _check_weights(names: set[str]) -> Problem | None:
    if any(_DISTRIBUTED.fullmatch(name) for name in names):
        return Problem(
            "weights_ambiguous",
            "has a distributed checkpoint (shard-*.safetensors) in its folder, which transformers would load instead "
            "of the model's weights. Save the model with save_pretrained() into a new folder.",
        )
    if any(name.endswith(".safetensors") for name in names):
        return None
    if any(name.endswith(".gguf") for name in names):
        return _gguf()
    if any(name.endswith(_PICKLES) for name in names):
        return Problem(
            "unsafe_checkpoint",
            "has no safetensors weights. Pickled checkpoints (.bin, .pt) can run code and are never loaded: convert "
            "the model to safetensors.",
        )
    return Problem("weights_incomplete", "has no safetensors weights in its folder. Copy all files of the model.")


def _check_tokenizer(names: set[str]) -> Problem | None:
    if names.isdisjoint(_TOKENIZERS):
        return Problem(
            "tokenizer_missing",
            "has no tokenizer in its folder. Copy tokenizer.json and tokenizer_config.json from where the model comes "
            "from.",
        )
    return None
