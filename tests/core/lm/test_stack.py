"""A model taken apart gives what the whole gives, from any layer on, and one that cannot be says so."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.lm.adapter import attached
from core.lm.modules import find_modules
from core.lm.stack import Stack, stack_of
from core.schemas.training import LoraSpec
from tests.core.helpers import FAMILIES, VOCABULARY, fingerprint, tiny


def batch() -> tuple[Tensor, Tensor]:
    """Three rows: one whole, one filled up on the right, one on the left."""
    ids = torch.randint(5, 1000, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, -4:], mask[2, :3] = 0, 0
    return ids, mask


@torch.no_grad()
def assert_same_from_every_layer(model: nn.Module, stack: Stack) -> None:
    ids, mask = batch()
    wanted = model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True)
    recording = stack.record(ids, mask)
    assert len(recording.inputs) == len(stack.layers) + 1
    for ours, theirs in zip(recording.inputs[:-1], wanted.hidden_states[:-1], strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(stack.finish(recording.inputs[-1]), wanted.hidden_states[-1], atol=1e-6, rtol=0)
    for layer in range(len(stack.layers)):
        final = stack.resume(recording, layer, recording.inputs[layer])
        torch.testing.assert_close(stack.head(final), wanted.logits, atol=1e-5, rtol=0)
        chosen = torch.arange(3), torch.tensor([11, 7, 11])
        torch.testing.assert_close(stack.head(final[chosen]), wanted.logits[chosen], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_replayed_from_any_layer(family: str) -> None:
    model = tiny(family)
    before = fingerprint(model)
    stack = stack_of(model)
    assert stack is not None
    stack.record(*batch())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert_same_from_every_layer(model, stack)
    assert fingerprint(model) == before


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox", "mixtral"])
def test_a_recording_goes_on_after_a_layer_was_changed(family: str) -> None:
    model = tiny(family)
    stack = stack_of(model)
    assert stack is not None
    ids, mask = batch()
    recording = stack.record(ids, mask)
    unchanged = stack.head(stack.resume(recording, 1, recording.inputs[1]))
    for parameter in stack.layers[1].parameters():
        parameter.mul_(1.5)
    wanted = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    found = stack.head(stack.resume(recording, 1, recording.inputs[1]))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(found, unchanged, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "mixtral", "qwen2_moe"])
def test_an_adapter_is_part_of_the_stack(family: str) -> None:
    model = tiny(family)
    with attached(model, find_modules(model), LoraSpec(rank=2, alpha=4), seed=0) as tuned:
        tuned.eval()
        stack = stack_of(tuned)
        assert stack is not None
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if ".lora_B" in name:
                    parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(3))
        assert_same_from_every_layer(tuned, stack)


def test_half_precision_is_replayed_too() -> None:
    model = tiny("gemma2").bfloat16()
    stack = stack_of(model)
    assert stack is not None
    ids, mask = batch()
    with torch.no_grad():
        recording = stack.record(ids, mask)
        found = stack.head(stack.resume(recording, 0, recording.inputs[0]))
        assert torch.equal(found, model(input_ids=ids, attention_mask=mask, use_cache=False).logits)


def _scaled_in_secret(model: PreTrainedModel) -> None:
    whole = model.forward

    def forward(**options: object) -> object:
        output = whole(**options)
        output.logits = output.logits * 1.5
        return output

    model.forward = forward


def _with_layers_called_twice(model: PreTrainedModel) -> None:
    model.model.layers.append(model.model.layers[0])
    model.config.num_hidden_layers = 3


@pytest.mark.parametrize("spoil", [_scaled_in_secret, _with_layers_called_twice])
def test_a_model_that_is_more_than_its_parts_is_left_to_whole_passes(spoil: object) -> None:
    model = tiny("llama")
    assert callable(spoil)
    spoil(model)
    assert stack_of(model) is None


def test_hidden_states_of_another_shape_are_left_to_whole_passes() -> None:
    # Gemma 3n carries several streams from layer to layer and joins them behind the last one.
    own = {
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "activation_sparsity_pattern": [0.0, 0.0],
        "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    config = AutoConfig.for_model("gemma3n_text", **FAMILIES["gemma2"] | own)
    assert stack_of(AutoModelForCausalLM.from_config(config).eval()) is None
