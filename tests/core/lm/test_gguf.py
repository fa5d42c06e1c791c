"""GGUF models: the converted model computes the same, is made once and whole, and what would change it is rejected."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.errors import InvalidModel, SecureTuneError, Unavailable
from core.lm import gguf
from core.lm.files import fetch
from core.lm.gguf_process import Rejected, check_saved, convert
from core.lm.load import BaseModel, load
from core.schemas.models import BaseModelEntry
from tests.core.helpers import logits, tiny
from tests.core.lm.ggufs import Change, entry, write_gguf
from tests.core.lm.models import CPU, edit

TEXTS = ["2 + 2?", "in 1984,  12 of 300", "    return a1\n", "<|user|>Hi<|end|>", "中文 🦩"]


@pytest.fixture(scope="module")
def file(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in one file; no test may change it."""
    return write_gguf(tmp_path_factory.mktemp("secret-place") / "small.Q.gguf", tiny("llama"), base.tokenizer)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which several tests convert, because each conversion takes seconds."""
    return tmp_path_factory.mktemp("state") / "converted"


def refused(entry: BaseModelEntry) -> InvalidModel:
    with pytest.raises(InvalidModel) as caught:
        fetch(entry)
    assert caught.value.param == "base_model"
    assert "secret-place" not in caught.value.message
    return caught.value


def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, a conversion fails."""
    monkeypatch.setattr(gguf, "_COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))


def test_the_converted_model_is_the_model(file: Path, cache: Path, base: BaseModel) -> None:
    found = load(entry(file, cache=cache, dtype="float32"), CPU)
    assert torch.equal(logits(found.model), logits(tiny("llama")))
    for text in TEXTS:
        assert found.tokenizer(text)["input_ids"] == base.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found.tokenizer.chat_template == base.tokenizer.chat_template
    assert found.stop_ids == base.stop_ids
    assert found.identity.sha256 == sha256(file.read_bytes()).hexdigest()
    assert found.identity.files_sha256 == gguf.folder_digest(found.folder)
    assert found.identity.source == "GGUF file small.Q.gguf, converted to float32"
    assert base.identity.files_sha256 is None


def test_a_file_is_converted_once_whether_whole_or_in_parts(
    file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = file.read_bytes()
    parts = [tmp_path / f"{number}.bin" for number in range(3)]
    for part, start, end in zip(parts, (0, 10, 5000), (10, 5000, None), strict=True):
        part.write_bytes(content[start:end])
    folder = fetch(entry(*parts, cache=cache))
    never(monkeypatch)
    assert fetch(entry(file, cache=cache, sha256=sha256(content).hexdigest())) == folder
    assert fetch(entry(file, cache=cache), weights=False) == folder
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert "bfloat16" in (folder / "config.json").read_text()
    assert "quantization" not in (folder / "config.json").read_text()
    monkeypatch.undo()
    assert refused(entry(*reversed(parts), cache=cache)).code == "model_unreadable"  # another file, and not GGUF


def test_files_that_are_not_the_listed_ones(file: Path, tmp_path: Path) -> None:
    other = refused(entry(file, cache=tmp_path, sha256="0" * 64))
    assert other.code == "gguf_changed"
    assert sha256(file.read_bytes()).hexdigest() in other.message
    assert refused(entry(file, file.with_name("part2.bin"), cache=tmp_path)).code == "model_missing"


def test_without_weights_nothing_is_converted(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="securetune models convert small") as caught:
        fetch(entry(file, cache=tmp_path), weights=False)
    assert caught.value.code == "model_not_converted"


def test_an_installation_that_cannot_convert_uses_what_a_worker_converted(
    file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(entry(file, cache=cache))
    monkeypatch.setattr(gguf, "_LIBRARIES", ("no-such-package",))
    assert fetch(entry(file, cache=cache), weights=False) == folder
    with pytest.raises(Unavailable, match=r"securetune\[worker\]") as caught:
        fetch(entry(file, cache=tmp_path))
    assert caught.value.code == "gguf_missing"


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("os.kill(os.getpid(), 9)", "conversion_failed"),
        ("sys.exit(3)", "conversion_failed"),
        ("print('noise'); print(json.dumps(['storage_full', ''])); sys.exit(1)", "storage_full"),
        ("print(json.dumps(['gguf_unsupported', 'is odd.'])); sys.exit(1)", "gguf_unsupported"),
    ],
)
def test_a_conversion_that_ends_early_leaves_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, code: str
) -> None:
    program = (
        "import json, os, pathlib, sys; folder = pathlib.Path(sys.argv[2]) / 'model'; folder.mkdir(); "
        f"(folder / 'config.json').write_text('half'); {ending}"
    )
    monkeypatch.setattr(gguf, "_COMMAND", (sys.executable, "-c", program))
    with pytest.raises(SecureTuneError) as caught:
        fetch(entry(file, cache=tmp_path))
    assert caught.value.code == code
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["digests"]


COUNT = """
import pathlib, sys
folder = pathlib.Path(sys.argv[2])
assert not (folder / "leftover").exists()
(folder / "model").mkdir()
with (folder.parent / "count").open("a") as file:
    file.write("x")
"""


def test_several_workers_convert_a_file_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_COMMAND", (sys.executable, "-c", COUNT))
    digest, versions = sha256(file.read_bytes()).hexdigest(), gguf._versions()
    left = tmp_path / f"{digest}-bfloat16-{versions}.part"  # of a worker that was killed
    left.mkdir()
    (left / "leftover").touch()
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(fetch, [entry(file, cache=tmp_path)] * 4))
    assert len(folders) == 1
    assert (tmp_path / "count").read_text() == "x"


def test_a_copy_that_has_changed_is_not_used(file: Path, cache: Path, tmp_path: Path) -> None:
    folder = fetch(entry(file, cache=cache))
    config = folder / "config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"rms_norm_eps": 0.5}))
    with pytest.raises(InvalidModel) as caught:
        load(entry(file, cache=cache), CPU)
    config.write_text(before)
    with pytest.raises(InvalidModel, match="has changed"):
        gguf.original_digest(tmp_path, gguf.folder_digest(folder))
    assert caught.value.code == "gguf_changed"
    assert folder.parent.name in caught.value.message
    assert str(cache) not in caught.value.message
    load(entry(file, cache=cache), CPU)


@pytest.mark.parametrize(
    ("write", "code", "named"),
    [
        (partial(write_gguf, leave_out="blk.1.ffn_up.weight"), "weights_incomplete", "layers.1.mlp.up_proj"),
        (partial(write_gguf, split="of-tomorrow"), "gguf_unsupported", "of-tomorrow"),
        (partial(write_gguf, change=lambda writer: writer.add_key_length(5)), "gguf_unsupported", "key_length = 5"),
        (partial(write_gguf, change=lambda writer: writer.add_logit_scale(0.5)), "gguf_unsupported", "logit_scale"),
    ],
)
def test_what_transformers_would_drop_or_guess_is_rejected(
    base: BaseModel, tmp_path: Path, write: Callable[..., Path], code: str, named: str
) -> None:
    file = write(tmp_path / "odd.gguf", tiny("llama"), base.tokenizer)
    with pytest.raises(Rejected) as caught:
        convert([file], tmp_path, torch.float32)
    assert caught.value.args[0] == code
    assert named in caught.value.args[1]
    assert str(tmp_path) not in caught.value.args[1]


def test_characters_are_composed_as_the_tokenizer_of_the_model_does(base: BaseModel, tmp_path: Path) -> None:
    convert([write_gguf(tmp_path / "m.gguf", tiny("llama"), base.tokenizer, split="qwen2")], tmp_path, torch.float32)
    saved = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert saved is not None
    assert saved("cafe\u0301")["input_ids"] == saved("caf\u00e9")["input_ids"]


def test_a_tokenizer_that_is_read_as_another_is_rejected(base: BaseModel, tmp_path: Path) -> None:
    convert([write_gguf(tmp_path / "m.gguf", tiny("llama"), base.tokenizer)], tmp_path, torch.float32)
    folder = tmp_path / "model"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    check_saved(tokenizer, folder)
    letters = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Sequence", "pretokenizers": [letters, bytewise]}
    edit(folder / "tokenizer.json", pre_tokenizer=split)
    with pytest.raises(Rejected, match="reads in another way"):
        check_saved(tokenizer, folder)


def test_a_setting_that_says_the_usual_is_harmless(base: BaseModel, tmp_path: Path) -> None:
    add: Change = lambda writer: (writer.add_key_length(4), writer.add_value_length(4))  # noqa: E731
    convert([write_gguf(tmp_path / "m.gguf", tiny("llama"), base.tokenizer, change=add)], tmp_path, torch.float32)
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert not (tmp_path / "source").exists()
