"""Which model folders load, which are refused and why, and that nothing in them is ever run."""

import json
import os
import pickle
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from core.catalog import TESTBED
from core.errors import InvalidInput, InvalidModel, Unavailable
from core.lm.chat import PLAIN_TEMPLATE
from core.lm.load import BaseModel, choose_device, load
from core.schemas.models import BaseModelEntry, FolderSource, HubSource
from tests.core.helpers import FAMILIES, logits, tiny
from tests.core.lm.hub import Hub, serve
from tests.core.lm.models import CPU, Change, config, edit, entry

REPO, REVISION = "owner/small-model", "0123456789abcdef0123456789abcdef01234567"


def test_the_testbed_loads_ready_to_be_measured(base: BaseModel) -> None:
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert base.device == CPU
    assert base.identity.name == "testbed"
    assert base.identity.source == "folder model"
    assert base.identity.architecture == "LlamaForCausalLM"
    assert base.identity.parameters == sum(parameter.numel() for parameter in base.model.parameters())
    assert base.context == 1024
    assert base.stop_ids == [base.tokenizer.eos_token_id]
    assert base.pad_id == base.tokenizer.pad_token_id


def test_weights_are_those_of_the_file(folder: Path) -> None:
    assert torch.equal(logits(load(entry(folder), CPU).model), logits(tiny("llama")))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_as_it_was_saved(folder: Path, family: str) -> None:
    saved = tiny(family)
    (folder / "model.safetensors").unlink()
    saved.save_pretrained(folder)
    found = load(entry(folder), CPU)
    assert torch.allclose(logits(found.model), logits(saved), atol=1e-5)
    assert found.warnings == ()


def test_tied_weights_are_not_missing(folder: Path) -> None:
    config = LlamaConfig.from_pretrained(folder)
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    found = load(entry(folder), CPU)
    head, words = found.model.get_output_embeddings(), found.model.get_input_embeddings()
    assert head is not None
    assert head.weight is words.weight


class _Evil:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def test_pickled_weights_are_refused_and_never_opened(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil(tmp_path / "opened")))
    with pytest.raises(InvalidModel) as caught:
        load(entry(folder), CPU)
    assert caught.value.code == "unsafe_checkpoint"
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path, file: str) -> None:
    (folder / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    names = {"AutoConfig": "own.A", "AutoModelForCausalLM": "own.B", "AutoTokenizer": ["own.C", None]}
    edit(folder / file, auto_map=names, model_type="own", tokenizer_class="C")
    with pytest.raises(InvalidModel) as caught:
        load(entry(folder), CPU)
    assert caught.value.code == "remote_code"
    assert not (tmp_path / "ran").exists()


def test_a_model_without_a_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InvalidModel) as caught:
        load(entry(folder), CPU)
    assert caught.value.code == "no_chat_template"
    assert caught.value.param == "base_model"
    assert 'chat_template = "plain"' in caught.value.message


def plain(folder: Path) -> BaseModelEntry:
    return entry(folder).model_copy(update={"chat_template": "plain"})


def test_a_model_without_a_chat_template_is_given_the_plain_one_where_its_entry_says_so(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "chat_template.jinja").unlink()
    found = load(plain(folder), CPU)
    assert found.identity.chat_template == "plain"
    assert found.tokenizer.chat_template == PLAIN_TEMPLATE
    text = found.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "### User:\nHello\n\n### Assistant:\n"
    found.tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == PLAIN_TEMPLATE


def test_the_plain_template_never_takes_the_place_of_the_models_own(folder: Path) -> None:
    assert load(entry(folder), CPU).identity.chat_template == "own"
    with pytest.raises(InvalidModel, match="has its own chat template") as caught:
        load(plain(folder), CPU)
    assert caught.value.code == "chat_template_exists"


def test_the_plain_template_needs_a_token_to_end_turns_with(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": None}))
    with pytest.raises(InvalidModel, match="end-of-sequence") as caught:
        load(plain(folder), CPU)
    assert caught.value.code == "chat_template_unsupported"


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel) as caught:
        load(entry(tmp_path / "none"), CPU)
    assert caught.value.code == "model_missing"
    assert "'none'" in caught.value.message
    assert str(tmp_path) not in caught.value.message


def remove(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def write(file: str, content: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content)


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def adapter(folder: Path) -> None:
    """A trained adapter beside the base model, which transformers would load with it."""
    tuned = get_peft_model(tiny("llama"), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    tuned.save_pretrained(str(folder), save_embedding_layers=False)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (write("model.safetensors", b"no tensors" * 100), "model_unreadable"),
        (cut_off, "weights_incomplete"),
        (write("model.safetensors", b""), "weights_incomplete"),
        (config(model_type="t5"), "not_causal_lm"),
        (config(model_type="nobody-knows-this"), "not_causal_lm"),
        (write("config.json", b"[]"), "model_unreadable"),
        (config(hidden_size="wide"), "model_unreadable"),
        (config(num_attention_heads=3), "model_unreadable"),
        (config(hidden_act="nonsense"), "model_unreadable"),
        (config(rope_scaling={"type": "nonsense", "factor": 2.0}), "model_unreadable"),
        (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantized_base"),
        (remove("tokenizer.json"), "tokenizer_missing"),
        (write("tokenizer.json", b"{}"), "tokenizer_unreadable"),
        (adapter, "adapter_in_folder"),
    ],
)
def test_a_spoilt_model_is_refused_with_a_reason(folder: Path, spoil: Change, code: str) -> None:
    spoil(folder)
    with pytest.raises(InvalidModel) as caught:
        load(entry(folder), CPU)
    assert caught.value.code == code
    assert "'small'" in caught.value.message
    assert str(folder.parent) not in caught.value.message


def test_the_digest_tells_apart_what_differs_and_nothing_else(folder: Path, template: Path) -> None:
    def digest(path: Path) -> str:
        return load(entry(path), CPU).identity.sha256

    first = digest(folder)
    assert first == digest(template)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    second = digest(folder)
    (folder / "chat_template.jinja").write_text((template / "chat_template.jinja").read_text() + " ")
    third = digest(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    assert len({first, second, third, digest(folder)}) == 4


def test_the_models_own_decoding_does_not_mix_in(folder: Path) -> None:
    edit(folder / "generation_config.json", repetition_penalty=9.0, num_beams=3, do_sample=True, eos_token_id=[4, 5])
    found = load(entry(folder), CPU)
    assert found.stop_ids == [4, 5]
    own = found.model.generation_config
    assert own is not None
    assert (own.repetition_penalty, own.num_beams, own.do_sample) == (None, None, None)


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("wish", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(wish: str) -> None:
    with pytest.raises(Unavailable) as caught:
        choose_device(wish)
    assert caught.value.code == "no_gpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_of_a_number_that_is_not_there(folder: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        choose_device("cuda:99")
    assert caught.value.code == "no_gpu"
    found = load(entry(folder), choose_device("cuda"))
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.bfloat16}


HUB_ENTRY = BaseModelEntry(name="small", source=HubSource(id=REPO, revision=REVISION))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_a_model_of_the_hub_is_taken_from_the_cache(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert constants.is_offline_mode()
    with pytest.raises(Unavailable) as caught:
        load(HUB_ENTRY, CPU)
    assert caught.value.code == "hub_unavailable"
    shutil.copytree(folder, cache / "models--owner--small-model" / "snapshots" / REVISION)
    found = load(HUB_ENTRY, CPU)
    assert found.identity.source == f"{REPO}@{REVISION}"
    assert found.identity.sha256 == load(entry(folder), CPU).identity.sha256
    other = HUB_ENTRY.model_copy(update={"source": HubSource(id=REPO, revision="f" * 40)})
    with pytest.raises(Unavailable):
        load(other, CPU)


def test_a_model_is_downloaded_without_what_could_run(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text("print()")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with serve(Hub({path.name: path.read_bytes() for path in folder.iterdir()}, REPO, REVISION)) as url:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        found = load(HUB_ENTRY, CPU)
        assert torch.equal(logits(found.model), logits(tiny("llama")))
        names = {path.name for path in found.folder.iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
        assert not {"own.py", "pytorch_model.bin"} & names
        with pytest.raises(InvalidModel) as caught:
            load(HUB_ENTRY.model_copy(update={"source": HubSource(id=REPO, revision="f" * 40)}), CPU)
        assert caught.value.code == "model_missing"
    # The server is gone, the files are not.
    assert load(HUB_ENTRY, CPU).identity == found.identity


def test_4_bit_weights_are_refused_before_anything_is_read() -> None:
    gone = TESTBED.model_copy(update={"source": FolderSource(path=Path("nowhere"))})
    with pytest.raises(InvalidInput) as refused:
        load(gone, torch.device("cpu"), four_bit=True)
    assert (refused.value.code, refused.value.param) == ("qlora_needs_cuda", "training.method")
    assert "Choose lora" in refused.value.message


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is there")
def test_what_4_bit_weights_need_is_named() -> None:
    with pytest.raises(Unavailable, match=r"install securetune\[gpu\]") as caught:
        load(TESTBED, torch.device("cuda"), four_bit=True)
    assert caught.value.code == "bitsandbytes_missing"
