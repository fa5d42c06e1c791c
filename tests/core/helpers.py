"""Used by the tests of the science: the testbed's rows, tiny random models of many architectures, fingerprints."""

from collections.abc import Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.data import Conversation, Rows
from core.data.encoded import IGNORED, Encoded
from core.data.template import RowEncoder
from core.lm.load import BaseModel
from core.schemas.data import Message
from core.schemas.results import ModelIdentity
from testbed import DATA_DIR

VOCABULARY = 1536
_COMMON: dict[str, object] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "initializer_range": 0.1,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 4,
}
_LLAMA: dict[str, object] = _COMMON | {"intermediate_size": 32, "num_key_value_heads": 2}
_EXPERTS: dict[str, object] = _LLAMA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA | {"sliding_window": 4},
    "qwen2": _LLAMA | {"tie_word_embeddings": True},
    "qwen3": _LLAMA | {"head_dim": 8},
    "gemma": _LLAMA | {"head_dim": 8},
    "gemma2": _LLAMA | {"head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 0.5},
    "gemma3_text": _LLAMA | {"head_dim": 8, "sliding_window": 4},
    "olmo2": _LLAMA,
    "phi3": _LLAMA,
    "gpt2": _COMMON,
    "gpt_neox": _COMMON | {"intermediate_size": 32},
    "bloom": {key: value for key, value in _COMMON.items() if key != "max_position_embeddings"},
    "falcon": _COMMON | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "opt": _COMMON | {"word_embed_proj_dim": 16, "ffn_dim": 32, "init_std": 0.1},
    "mixtral": _LLAMA | {"num_local_experts": 4},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 24},
    "qwen3_moe": _EXPERTS | {"head_dim": 8},
    "gpt_oss": _LLAMA | {"head_dim": 8, "num_local_experts": 4, "rope_parameters": {"rope_type": "default"}},
}
"""Options of tiny models that share the testbed's vocabulary, by transformers' name of the family."""

REQUESTS = (
    "Name a river in Asia.",
    "What is 2 plus 3?",
    "how do magnets work",
    "Write a haiku about snow!",
    "Who wrote Hamlet?",
    "List three fruits",
    "Why is the sky blue?",
    "Translate house into Dutch",
    "Spell banana",
    "Explain rain to a child.",
)
"""Ten requests that share no beginning and no end."""


def ignore(_done: int, _total: int) -> None:
    """A progress callback that does nothing."""


class ProgressLog(list[tuple[int, int]]):
    """A progress callback that records its calls."""

    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))


def tiny(family: str, *, seed: int = 0) -> PreTrainedModel:
    """A random model with two layers, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family]))
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases begin as ones and zeros, which would hide what is left out
                nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    assert isinstance(model, PreTrainedModel)
    return model.requires_grad_(False).eval()


def tiny_base(family: str, base: BaseModel) -> BaseModel:
    """A tiny model with the testbed's tokenizer."""
    identity = ModelIdentity(name=family, source="random", sha256="0" * 64, parameters=0, architecture=family)
    return BaseModel(tiny(family), base.tokenizer, identity, Path("nowhere"))


def fingerprint(model: nn.Module) -> str:
    """Digest of all weights and buffers with their names."""
    total = sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def module_of(parameter: str) -> str:
    """Name of the base model's module that an adapter's parameter belongs to."""
    return parameter.removeprefix("base_model.model.").partition(".lora_")[0]


def conversations(count: int, name: str = "instructions.jsonl") -> list[Conversation]:
    """The first rows of one of the testbed's tuning sets."""
    found = list(islice(Rows(DATA_DIR / name, max_rows=1_000_000), count))
    return [row for row in found if isinstance(row, Conversation)]


def encoded(base: BaseModel, count: int, name: str = "instructions.jsonl") -> tuple[Encoded, ...]:
    """The same rows, tokenised."""
    return tuple(RowEncoder(base.tokenizer, max_length=256).encode(conversations(count, name)))


def user_turns(*texts: str) -> list[tuple[Message, ...]]:
    """Conversations with one user turn each."""
    return [(Message(role="user", content=text),) for text in texts]


def user_rows(texts: Sequence[str], system: str | None = None) -> list[Conversation]:
    """Rows with one user turn each, behind the same system turn if there is one."""
    first = [] if system is None else [Message(role="system", content=system)]
    answer = Message(role="assistant", content="Yes.")
    return [
        Conversation((*first, Message(role="user", content=text), answer), line) for line, text in enumerate(texts, 1)
    ]


@torch.inference_mode()
def logits(model: nn.Module, tokens: Sequence[int] = (2, 60, 61, 62, 4, 3)) -> Tensor:
    """The model's logits for one row of tokens: `seq vocabulary`."""
    return model(input_ids=torch.tensor([list(tokens)])).logits[0].clone()


def shown_before_answers(base: BaseModel, rows: Sequence[Encoded]) -> list[str]:
    """What is shown of rows before their answers."""
    return [str(base.tokenizer.decode(row.input_ids[row.labels == IGNORED].tolist())) for row in rows]
