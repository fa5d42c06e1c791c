"""Model folders for tests, written by hand without torch, and changes that spoil them."""

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

Change = Callable[[Path], object]
"""Changes a model folder."""
ROWS, WIDTH = 8, 4
INDEX = "model.safetensors.index.json"
CONFIG: dict[str, object] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": ROWS,
    "hidden_size": WIDTH,
    "eos_token_id": 1,
}
TENSORS: dict[str, tuple[str, tuple[int, ...]]] = {
    "model.embed_tokens.weight": ("F32", (ROWS, WIDTH)),
    "model.layers.0.mlp.up_proj.weight": ("F32", (4, WIDTH)),
    "lm_head.weight": ("F32", (ROWS, WIDTH)),
}
TOKENIZER: dict[str, object] = {
    "version": "1.0",
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<end>": 1, "hello": 2}, "unk_token": "<unk>"},
    "added_tokens": [{"id": 1, "content": "<end>", "special": True}],
}


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """A file with these tensors, by name their type and shape, all zeros; four bytes a value whatever the type."""
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = 4
        for each in shape:
            size *= each
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + bytes(end)


def model_folder(folder: Path, *, config: object = None, weights: str = "model.safetensors") -> Path:
    """A folder that can be tuned by its files."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>", "chat_template": "{{ messages }}"}))
    (folder / weights).write_bytes(safetensors(TENSORS))
    return folder


def edit(file: str, **fields: object) -> Change:
    """Change fields of a JSON file; `...` removes a field."""

    def spoil(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        content = {key: value for key, value in (content | fields).items() if value is not ...}
        path.write_text(json.dumps(content))

    return spoil


def write(file: str, content: str | bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def remove(*files: str) -> Change:
    return lambda folder: [(folder / file).unlink() for file in files]


def both(*steps: Change) -> Change:
    return lambda folder: [step(folder) for step in steps]


def tensors(**changed: tuple[str, tuple[int, ...]]) -> Change:
    return write("model.safetensors", safetensors(TENSORS | changed))


def shards(index: object, *files: str) -> Change:
    """The weights as an index and these files."""
    content = safetensors(TENSORS)
    return both(remove("model.safetensors"), write(INDEX, json.dumps(index)), *(write(file, content) for file in files))


def link(file: str, target: str) -> Change:
    def spoil(folder: Path) -> None:
        path = folder.parent / target
        if not path.exists() and target != "gone":
            path.write_bytes((folder / file).read_bytes())
        (folder / file).unlink()
        (folder / file).symlink_to(path)

    return spoil


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "generation_config.json")


def cut(file: str, size: int) -> Change:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def quantised(**fields: object) -> Change:
    return edit("config.json", quantization_config=fields)


def vocabulary(*added: tuple[int, str, bool], template: object = "{{ messages }}", **settings: object) -> Change:
    """A tokenizer with these added tokens: id, text, and whether it is a control token."""
    entries = [{"id": place, "content": text, "special": special} for place, text, special in added]
    return both(
        edit("tokenizer.json", added_tokens=entries), edit("tokenizer_config.json", chat_template=template, **settings)
    )
