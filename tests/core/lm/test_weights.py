"""Weights that are not exactly those of the model: missing, surplus, of another shape, tied wrongly, NaN."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, LlamaConfig, LlamaForCausalLM

from core.errors import InvalidModel
from core.lm.load import load
from core.lm.weights import check_finite, stored_tensors
from tests.core.helpers import logits, tiny
from tests.core.lm.models import CPU, Change, config, entry, weights

UP, NORM, HEAD = "model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"
WORDS = "model.embed_tokens.weight"


def put(name: str, value: float) -> Change:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[3] = value

    return weights(change)


def halves(name: str, value: float) -> Change:
    """The weights in bfloat16, with one value changed."""

    def change(tensors: dict[str, Tensor]) -> None:
        tensors.update({key: tensor.bfloat16() for key, tensor in tensors.items()})
        tensors[name].view(-1)[3] = value

    return weights(change)


def prefix(text: str) -> Change:
    """The weights under other names, as a compiled or wrapped model saves them."""

    def change(tensors: dict[str, Tensor]) -> None:
        renamed = {text + name: tensors.pop(name) for name in list(tensors)}
        tensors.update(renamed)

    return weights(change)


def opposite(tensors: dict[str, Tensor]) -> None:
    tensors[UP][0, :2] = torch.tensor([torch.inf, -torch.inf])


def add(**shapes: tuple[int, ...]) -> Change:
    return weights(lambda tensors: tensors.update({name: torch.zeros(shape) for name, shape in shapes.items()}))


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


@pytest.mark.parametrize(
    ("spoil", "code", "named"),
    [
        (put(UP, torch.nan), "weights_not_finite", UP),
        (put(UP, torch.inf), "weights_not_finite", UP),
        (put(NORM, -torch.inf), "weights_not_finite", NORM),
        (put(WORDS, torch.nan), "weights_not_finite", WORDS),
        (halves(HEAD, torch.nan), "weights_not_finite", HEAD),
        (weights(opposite), "weights_not_finite", UP),
        (weights(lambda tensors: tensors.pop(UP)), "weights_incomplete", UP),
        (weights(lambda tensors: tensors.pop(HEAD)), "weights_incomplete", "tie_word_embeddings"),
        (prefix("_orig_mod."), "weights_incomplete", "They contain _orig_mod.lm_head.weight instead"),
        (config(num_hidden_layers=3), "weights_incomplete", "model.layers.2."),
        (weights(lambda tensors: tensors.update({UP: torch.zeros(3, 3)})), "weights_mismatch", f"{UP} (3 x 3 instead"),
        (config(intermediate_size=24), "weights_mismatch", "instead of"),
        (config(num_hidden_layers=1), "surplus_weights", "model.layers.1."),
        (add(**{"model.layers.0.self_attn.q_proj.bias": (16,)}), "surplus_weights", "q_proj.bias"),
        (add(**{"v_head.summary.weight": (1, 16)}), "surplus_weights", "v_head"),
        (add(**{"model.layers.0.mlp.up_proj.lora_A.weight": (2, 16)}), "surplus_weights", "lora_A"),
        (config(tie_word_embeddings=True), "tied_weights_differ", "tie_word_embeddings"),
    ],
)
def test_a_model_whose_weights_are_not_its_own(folder: Path, spoil: Change, code: str, named: str) -> None:
    spoil(folder)
    with pytest.raises(InvalidModel) as caught:
        load(entry(folder), CPU)
    assert caught.value.code == code
    assert named in caught.value.message
    assert str(folder.parent) not in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(add(**{"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)}), id="rotary frequencies"),
        pytest.param(add(**{"model.layers.0.attn.masked_bias": (1,)}), id="a mask of old versions"),
        pytest.param(config(vocab_size=1536), id="nothing"),
    ],
)
def test_tensors_that_the_code_computes_are_harmless(folder: Path, change: Change) -> None:
    change(folder)
    assert torch.equal(logits(load(entry(folder), CPU).model), logits(tiny("llama")))


def test_an_output_layer_that_equals_the_embeddings_is_tied(folder: Path) -> None:
    both(weights(lambda tensors: tensors.update({HEAD: tensors[WORDS].clone()})), config(tie_word_embeddings=True))(
        folder
    )
    model = load(entry(folder), CPU).model
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    assert head is not None
    assert head.weight is words.weight


def test_large_values_whose_sum_overflows_are_finite(folder: Path) -> None:
    put(UP, 3e38)(folder)
    check_finite(entry(folder), [("large", torch.full((4,), 3e38)), ("integers", torch.tensor([1, 2]))])
    with pytest.raises(InvalidModel, match="in bad"):
        check_finite(entry(folder), [("large", torch.full((4,), 3e38)), ("bad", torch.tensor([1.0, torch.nan]))])
    assert load(entry(folder), CPU).model is not None


def test_stored_tensors_are_those_of_all_shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    assert dict(stored_tensors(folder)).keys() == tensors.keys()
    (folder / "model.safetensors").unlink()
    tiny("llama").save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    save_file({"other": torch.zeros(1)}, folder / "other.safetensors")
    stored = dict(stored_tensors(folder))
    assert stored.keys() == tensors.keys()
    assert torch.equal(stored[UP], tensors[UP])
    assert torch.equal(logits(load(entry(folder), CPU).model), logits(tiny("llama")))


def test_a_dequantised_copy_as_the_advice_saves_it_can_be_tuned(folder: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1536, hidden_size=128, intermediate_size=256, num_hidden_layers=1))
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if "proj" in name]:
        tensors[f"{name}_scale_inv"] = torch.ones([size // 128 for size in tensors[name].shape])
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})(folder)
    with pytest.raises(InvalidModel, match=r"FineGrainedFP8Config\(dequantize=True\).*save_original_format=False"):
        load(entry(folder), CPU)
    options = FineGrainedFP8Config(dequantize=True)
    copy = AutoModelForCausalLM.from_pretrained(folder, quantization_config=options, dtype=torch.float32)
    copy.save_pretrained(folder, save_original_format=False)
    assert torch.equal(logits(load(entry(folder), CPU).model), logits(copy))
