"""A judge model that the worker loads itself, on its first query.

Covers: prompts that are too long, the cost in tokens. Not here: loading and generation (core.lm), prompts.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property

import torch

from core.errors import InvalidInput, InvalidModel
from core.judges.model import Failure, Heartbeat, OnReply, Prompt, Reply, Request
from core.lm.files import fetch
from core.lm.generate import continue_tokens
from core.lm.gguf import folder_digest
from core.lm.load import BaseModel, load
from core.lm.prompts import render
from core.modelfiles import check_files
from core.schemas.judges import JudgeEntry
from core.schemas.models import BaseModelEntry, ModelSource

_AT_ONCE = 256
"""Prompts of one call of `continue_tokens`. Their replies arrive when the last of them has ended; the batch size within
a call depends on memory (core.lm.generate)."""


class LocalModel:
    """A model in memory."""

    def __init__(self, entry: JudgeEntry, source: ModelSource, device: torch.device) -> None:
        self._entry, self._device = entry, device
        self._base: BaseModel | None = None
        self._listed = BaseModelEntry(name=entry.name, source=source)

    @cached_property
    def identity(self) -> str:
        """Its name, and a digest over the names and contents of its files. Downloads missing files.

        Raises:
            InvalidModel, Unavailable: as `core.lm.files.fetch`.
        """
        with _name_judge(self._entry.name):
            folder = fetch(self._listed)
        return f"{self._entry.name} sha256:{folder_digest(folder)}"

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens of its tokenizer, the longest first, as one may contain another."""
        known = self._loaded.tokenizer.added_tokens_decoder.values()
        return tuple(sorted((token.content for token in known if token.special), key=len, reverse=True))

    def check(self) -> None:
        """Check its files without loading it.

        Raises:
            InvalidModel, Unavailable: as `core.lm.files.fetch` and `core.modelfiles.check_files`.
        """
        with _name_judge(self._entry.name):
            check_files(self._entry.name, fetch(self._listed))

    def query(self, request: Request, on_reply: OnReply, heartbeat: Heartbeat) -> None:
        """See `JudgeModel.query`.

        Raises:
            InvalidModel, Unavailable: it cannot be loaded, or its chat template rejects the prompt; codes of core.lm.
        """
        base = self._loaded
        most = min(request.max_new_tokens, base.context - 1)
        fit: list[tuple[int, list[int]]] = []
        for index, prompt in enumerate(request.prompts):
            tokens = self._tokens(base, prompt)
            over = len(tokens) + most - base.context
            if over > 0 and not request.truncate:
                on_reply(index, Failure(f"the prompt is {over} tokens too long for the judge model's context"))
            else:
                fit.append((index, tokens[max(over, 0) :]))
        fit.sort(key=lambda each: len(each[1]))
        for start in range(0, len(fit), _AT_ONCE):
            some = fit[start : start + _AT_ONCE]
            prompts = [tokens for _, tokens in some]
            rows = continue_tokens(
                base, base.model, prompts, max_new_tokens=most, on_progress=lambda _done, _total: heartbeat()
            )
            for (index, tokens), row in zip(some, rows, strict=True):
                text = str(base.tokenizer.decode(row, skip_special_tokens=True)).strip()
                on_reply(index, Reply(text, len(tokens), len(row)))

    def close(self) -> None:
        """Free its memory."""
        if self._base is not None:
            self._base = None
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    @property
    def _loaded(self) -> BaseModel:
        if self._base is None:
            with _name_judge(self._entry.name):
                self._base = self._load()
        return self._base

    def _load(self) -> BaseModel:
        try:
            return load(self._listed, self._device)
        except InvalidModel as error:
            if error.code != "no_chat_template" or self._entry.template is None:
                raise
        # A classifier with its own template needs no chat template, so the plain one is never used.
        return load(self._listed.model_copy(update={"chat_template": "plain"}), self._device)

    def _tokens(self, base: BaseModel, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return base.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with _name_judge(self._entry.name):
            # The last turn of a classifier's prompt is the judged answer, not the beginning of its own reply.
            return render(base.tokenizer, prompt, begun=False)


@contextmanager
def _name_judge(name: str) -> Generator[None]:
    """Name the judge model in errors of loading and rendering, which name the base model."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidModel(
            f"The judge model {name!r} cannot be used. {error.message}", code=error.code, param="security.judges"
        ) from error
