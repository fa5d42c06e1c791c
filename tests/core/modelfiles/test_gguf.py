"""GGUF files by their metadata: what is rejected with which code, limits, and that messages show no path."""

import io
import struct
from pathlib import Path

import pytest
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from core.errors import InvalidModel
from core.modelfiles import check_file
from core.modelfiles.config import CAUSAL_MODELS
from core.modelfiles.gguf import ARCHITECTURES, open_joined

METADATA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.ggml.scores": [1, 2, 3],
    "tokenizer.chat_template": "{{ messages }}",
}
TENSORS = ("token_embd.weight", "output_norm.weight")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value_of(value: object) -> bytes:
    match value:
        case str():
            return struct.pack("<I", 8) + text(value)
        case int():
            return struct.pack("<II", 4, value)
        case list() if isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case list():
            return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
        case _:
            assert isinstance(value, bytes)
            return value


def content(*, tensors: tuple[str, ...] = TENSORS, version: int = 3, **changed: object) -> bytes:
    """A file; `...` leaves a key out, and bytes are written as they are. Dots in keys are double underscores."""
    metadata = METADATA | {key.replace("__", "."): value for key, value in changed.items()}
    kept = {key: value for key, value in metadata.items() if value is not ...}
    return b"".join(
        (
            b"GGUF",
            struct.pack("<IQQ", version, len(tensors), len(kept)),
            *(text(key) + value_of(value) for key, value in kept.items()),
            *(text(name) + struct.pack("<IQQIQ", 2, 4, 4, 0, 0) for name in tensors),
            bytes(64),
        )
    )


def problem(folder: Path, data: bytes, *, tokenizer: bool = True, own_template: bool = True) -> str | None:
    place = folder / "secret-place"
    place.mkdir(exist_ok=True)
    (place / "m.gguf").write_bytes(data)
    try:
        check_file("mine", [place / "m.gguf"], tokenizer=tokenizer, own_template=own_template)
    except InvalidModel as error:
        found = error
    else:
        return None
    assert found.param == "base_model"
    assert found.message.startswith("The base model 'mine' ")
    assert found.message.endswith(".")
    assert "secret-place" not in found.message
    return found.code


def test_a_file_that_can_be_converted(tmp_path: Path) -> None:
    assert problem(tmp_path, content()) is None
    assert problem(tmp_path, content(version=2, split__count=1, llama__rope__scaling__type="none")) is None


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("model_unreadable", b""),
        ("model_unreadable", b"GGUF"),
        ("model_unreadable", b"PK" + content()),
        ("model_unreadable", content()[:60]),
        ("model_unreadable", content()[:-150]),
        ("model_unreadable", content(version=1)),
        ("model_unreadable", content(version=4)),
        ("model_unreadable", content(odd=struct.pack("<I", 13))),
        ("model_unreadable", content(odd=struct.pack("<IIQ", 9, 9, 1))),
        ("model_unreadable", content(odd=struct.pack("<IIQ", 9, 12, 1 << 40))),
        ("model_unreadable", content(odd=struct.pack("<IQ", 8, 1 << 60))),
        ("model_unreadable", b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 62)),
        ("gguf_unsupported", content(general__architecture=...)),
        ("gguf_unsupported", content(general__architecture="t5")),
        ("gguf_unsupported", content(split__count=3)),
        ("gguf_unsupported", content(llama__rope__scaling__type="yarn")),
        ("gguf_unsupported", content(tensors=(*TENSORS, "rope_freqs.weight"))),
        ("tokenizer_missing", content(tokenizer__ggml__tokens=...)),
        ("no_chat_template", content(tokenizer__chat_template=...)),
    ],
)
def test_a_file_that_cannot_be_converted(tmp_path: Path, code: str, data: bytes) -> None:
    assert problem(tmp_path, data) == code


def test_only_what_is_used_is_required(tmp_path: Path) -> None:
    bare = content(tokenizer__ggml__tokens=..., tokenizer__chat_template=...)
    assert problem(tmp_path, bare, tokenizer=False) is None
    assert problem(tmp_path, content(tokenizer__chat_template=...), own_template=False) is None


def test_a_corrected_file_is_checked_again(tmp_path: Path) -> None:
    assert problem(tmp_path, content(version=1)) == "model_unreadable"
    assert problem(tmp_path, content()) is None


def test_parts_are_read_as_one_file(tmp_path: Path) -> None:
    data = content()
    parts = [tmp_path / f"{number}.bin" for number in range(4)]
    for part, piece in zip(parts, (data[:3], b"", data[3:70], data[70:]), strict=True):
        part.write_bytes(piece)
    check_file("mine", parts)
    with open_joined(parts) as joined:
        assert joined.read() == data
    with open_joined(parts) as joined:
        assert joined.readinto(bytearray(10)) == 10
        with pytest.raises(io.UnsupportedOperation):
            joined.seek(0)
    parts[2].unlink()
    with pytest.raises(InvalidModel, match=r"no file 2\.bin") as caught:
        check_file("mine", parts)
    assert caught.value.code == "model_missing"
    assert str(tmp_path) not in caught.value.message


def test_the_architectures_are_those_of_transformers() -> None:
    names = {"gemma3": "gemma3_text", "qwen35": "qwen3_5_text", "qwen35moe": "qwen3_5_moe_text"}
    renamed = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}
    for each in ARCHITECTURES:
        assert renamed.get(each, each) in {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS}
        assert (renamed | names).get(each, each) in CAUSAL_MODELS
