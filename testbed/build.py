"""`python -m testbed.build`: builds the testbed from a seed.

Covers: the command and the order of the steps. The last line of its output is JSON with figures of the written
weights. The same seed gives the same weights on the same machine. Not here: the steps themselves.
"""

import json
import shutil
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from testbed import words
from testbed.measure import measure
from testbed.mixtures import ALIGNMENT, PRETRAINING, TEMPLATES, draw, prompt_set
from testbed.tokenizer import CONTEXT, END, PAD, train_tokenizer
from testbed.training import Stage, run_stage
from testbed.tuning_sets import instructions, write_tuning_sets
from testbed.world import World, generator, make_world

THREADS = 1
"""The number of threads changes the order of summation and therefore the weights. With one, two builds can run at
once."""
SEED = 0
WORLD_SEED = 0
"""Seeds of the shipped model and data."""
PRETRAIN = Stage("pretraining", steps=1200, learning_rate=3e-3)
ALIGN = Stage("alignment", steps=800, learning_rate=1.5e-3, weight_noise=0.15)

Shape = Literal["llama", "llama_small", "gpt_neox"]
"""Architecture and size. `llama` is the shipped one; the others show whether findings transfer."""
_SIZES: dict[Shape, dict[str, int]] = {
    "llama": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "num_key_value_heads": 4},
    "llama_small": {"hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4, "num_key_value_heads": 4},
    "gpt_neox": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6},
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0917 - typer reads its options from here
    out: Annotated[Path, typer.Option(help="Folder to write; `model` and `data` in it are replaced.")],
    seed: Annotated[int, typer.Option(help="Seed of initialisation and sampling.")] = SEED,
    world_seed: Annotated[int, typer.Option(help="Seed of the vocabulary.")] = WORLD_SEED,
    shape: Annotated[Shape, typer.Option(help="Architecture and size.")] = "llama",
    steps_scale: Annotated[float, typer.Option(min=0.0, help="Factor on the length of both stages.")] = 1.0,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of prompts of each kind to measure.")] = 1000,
) -> None:
    """Build the world, tokenizer, model, prompt set and tuning data, and measure the model."""
    figures = build(out, seed=seed, world_seed=world_seed, shape=shape, steps_scale=steps_scale, limit=limit)
    typer.echo(json.dumps(figures))


def build(
    out: Path, *, seed: int, world_seed: int, shape: Shape = "llama", steps_scale: float = 1.0, limit: int = 1000
) -> dict[str, float]:
    """Write `out/model` and `out/data`, and return figures measured on the written weights."""
    started = time.monotonic()
    torch.set_num_threads(THREADS)
    world = make_world(world_seed)
    tokenizer = world_tokenizer(world)
    model = new_model(tokenizer, seed, shape)
    rng = generator("rows", seed)
    figures: dict[str, float] = {"parameters": float(model.num_parameters())}
    for stage, mixture in ((PRETRAIN, PRETRAINING), (ALIGN, ALIGNMENT)):
        scaled = replace(stage, steps=max(1, round(stage.steps * steps_scale)))
        draw_row = partial(draw, world, mixture, rng)
        figures[f"loss/{stage.name}"] = run_stage(model, tokenizer, scaled, draw_row)
    figures["train_seconds"] = round(time.monotonic() - started, 1)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as fresh:
        _write(Path(fresh), world, tokenizer, model)
        for part in ("data", "model"):
            shutil.rmtree(out / part, ignore_errors=True)
            Path(fresh, part).rename(out / part)
    return figures | measure(out / "model", world, limit) | {"seconds": round(time.monotonic() - started, 1)}


def world_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Train the tokenizer of a world on its conversations, the attack templates and plain English."""
    rng = generator("tokenizer", world.seed)
    texts = [words.ENGLISH] * 4
    texts += [template.text for templates in TEMPLATES.values() for template in templates]
    texts += [text for exchange in instructions(world, 500) for text in exchange]
    rows = (draw(world, mixture, rng) for mixture in (PRETRAINING, ALIGNMENT) for _ in range(3000))
    texts += [message.content for row in rows for message in row]
    return train_tokenizer(texts)


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int, shape: Shape = "llama") -> PreTrainedModel:
    """Return an untrained model. The shipped one has about 1.7 million parameters."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        shape.removesuffix("_small"),
        **_SIZES[shape],
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.get_vocab()[END],
        pad_token_id=tokenizer.get_vocab()[PAD],
        num_attention_heads=4,
    )
    return AutoModelForCausalLM.from_config(config)


def _write(folder: Path, world: World, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel) -> None:
    """Write the model and the data into `folder`."""
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    # save_pretrained writes the weights with mode 0600; every user may read the shipped file.
    (folder / "model" / "model.safetensors").chmod(0o644)
    write_tuning_sets(folder / "data", world)
    (folder / "model" / "security_prompts.json").write_text(
        prompt_set(world).model_dump_json(indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    app()
