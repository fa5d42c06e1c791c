"""What config.json says of a model: its kind, its own code, quantisation.

The kinds that can be tuned are the causal language models of transformers; `causal_models.json` lists them, so that the
API needs no transformers. Not here: weights, vocabulary (core.modelfiles.weights, tokens).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from core.modelfiles.reading import JsonObject, Problem

CAUSAL_MODELS: Mapping[str, str] = json.loads(
    Path(__file__).with_name("causal_models.json").read_text(encoding="utf-8")
)
"""The class that transformers loads for each `model_type` as a causal language model."""
_CAUSAL_CLASSES = ("forcausallm", "lmheadmodel")
_LOAD_WITH = {"mxfp4": "Mxfp4Config", "fp8": "FineGrainedFP8Config", "compressed-tensors": "CompressedTensorsConfig"}
_DEQUANTIZABLE = {
    **{
        method: f"from_pretrained(..., quantization_config={name}(dequantize=True))"
        for method, name in _LOAD_WITH.items()
    },
    "bitsandbytes": "from_pretrained(...).dequantize()",
    "higgs": "from_pretrained(...).dequantize()",
}
"""How transformers turns quantised weights into ordinary ones, where it can."""


def check_config(config: JsonObject) -> Problem | None:
    """The first problem of a configuration."""
    if problem := _check_quantization(config) or _check_kind(config):
        return problem
    if config.get("transformers_weights") is not None:
        return Problem(
            "weights_ambiguous",
            "names a weights file of its own in config.json (transformers_weights). Name the file model.safetensors "
            "and remove the field.",
        )
    return None


def text_configs(config: JsonObject) -> Iterator[JsonObject]:
    """The configuration, and the part for text of a model that has several parts."""
    yield config
    inner = config.get("text_config")
    if isinstance(inner, dict):
        yield cast("JsonObject", inner)


def quantized(method: str) -> Problem:
    """The problem of weights that are quantised already."""
    recipe = _DEQUANTIZABLE.get(method)
    advice = "Tune the model that it was made from, and quantise the result."
    if recipe:
        advice += (
            f" If there is none, save a copy that transformers dequantises: {recipe}, then save_pretrained(..., "
            "save_original_format=False)."
        )
    return Problem("quantized_base", f"has weights that are quantised already ({method}). {advice}")


def _check_quantization(config: JsonObject) -> Problem | None:
    for part in text_configs(config):
        settings = part.get("quantization_config") or part.get("compression_config")
        if not settings:
            continue
        fields: JsonObject = cast("JsonObject", settings) if isinstance(settings, dict) else {}
        method = fields.get("quant_method") or fields.get("quant_algo")
        if not isinstance(method, str):
            method = "bitsandbytes" if {"load_in_4bit", "load_in_8bit"} & set(fields) else "unknown method"
        return quantized(method[:40])
    return None


def _check_kind(config: JsonObject) -> Problem | None:
    kind, named = config.get("model_type"), config.get("architectures") or ()
    classes = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    known = CAUSAL_MODELS.get(kind) if isinstance(kind, str) else None
    if known is None and config.get("auto_map"):
        return Problem(
            "remote_code",
            "needs its own Python code (auto_map in config.json), which is never run: choose another model.",
        )
    if known is None:
        described = f"is of the type {kind[:40]!r}" if isinstance(kind, str) else "has no model_type in config.json"
        return Problem(
            "not_causal_lm",
            f"{described}, which transformers does not load as a causal language model. Choose a chat model that "
            "generates text.",
        )
    if classes and not any(_is_causal(each, known) for each in classes):
        return Problem(
            "not_causal_lm",
            f"is a {classes[0][:60]} by its config.json (architectures), not a causal language model such as {known}. "
            "Choose a chat model that generates text.",
        )
    if config.get("is_encoder_decoder") is True:
        return Problem(
            "not_causal_lm",
            "is an encoder-decoder by its config.json, not a causal language model. Choose a chat model that "
            "generates text.",
        )
    return None


def _is_causal(name: str, known: str) -> bool:
    return name.lower() == known.lower() or name.lower().endswith(_CAUSAL_CLASSES)
