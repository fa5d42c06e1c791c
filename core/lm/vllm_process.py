"""The process that generates with vLLM: `python -I core/lm/vllm_process.py`, with the Python of vLLM's own environment.

core.lm.vllm_engine starts it and describes the messages, JSON lines on stdin and stdout. It imports nothing of
securetune, because vLLM permits other versions of libraries than securetune needs. It ends when stdin ends.
"""

import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, TextIO, cast

_PROBE = "probe"


class _Engine(Protocol):
    """What is used of vLLM's `LLMEngine`."""

    def add_request(self, name: str, prompt: object, params: object, *, lora_request: object) -> str: ...
    def has_unfinished_requests(self) -> bool: ...
    def step(self) -> list[Any]: ...
    def abort_request(self, names: list[str], *, internal: bool) -> None: ...


def main() -> None:
    """Load a model, then answer requests one after the other."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    try:
        server = _Server(json.loads(sys.stdin.readline()), out)
        while line := sys.stdin.readline():
            server.answer(json.loads(line))
    except (BrokenPipeError, EOFError):  # the parent has gone
        pass
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        _send(out, {"error": f"{type(error).__name__}: {lines[-1]}"})
        raise
    os._exit(0)  # exit handlers of libraries may hang, and everything ends with the process


class _Server:
    """A model in vLLM."""

    def __init__(self, options: Mapping[str, Any], out: TextIO) -> None:
        self._vllm: Any = import_module("vllm")  # takes seconds
        self._delta = import_module("vllm.sampling_params").RequestOutputKind.DELTA
        self._out, adapter = out, options["adapter"]
        arguments = self._vllm.EngineArgs(**options["engine"], enable_lora=adapter is not None)
        self._engine = cast(_Engine, self._vllm.LLMEngine.from_engine_args(arguments))
        requests = import_module("vllm.lora.request")
        self._lora = requests.LoRARequest("tuned", 1, adapter) if adapter is not None else None
        _send(out, {"ready": True})

    def answer(self, request: Mapping[str, Any]) -> None:
        """Answer one request."""
        if _PROBE in request:
            _send(self._out, {_PROBE: self._score(request[_PROBE])})
        else:
            self._generate(request)
            _send(self._out, {"done": True})

    def _score(self, tokens: list[int]) -> list[float]:
        """The log-probability of each token after the first, given those before it."""
        sampling = self._vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        self._engine.add_request(_PROBE, {"prompt_token_ids": tokens}, sampling, lora_request=self._lora)
        scored: list[Any] = []
        while self._engine.has_unfinished_requests():
            scored = next((output.prompt_logprobs for output in self._engine.step() if output.prompt_logprobs), scored)
        return [row[token].logprob for row, token in zip(scored[1:], tokens[1:], strict=True)]

    def _generate(self, request: Mapping[str, Any]) -> None:
        """Send the new tokens of each step, and stop the answers that the parent names in its reply."""
        names: dict[str, str] = {}
        for name, (tokens, max_tokens, seed) in request["rows"].items():
            sampling = self._vllm.SamplingParams(
                max_tokens=max_tokens,
                temperature=request["temperature"],
                top_p=request["top_p"],
                seed=seed,
                stop_token_ids=request["stop_ids"],
                ignore_eos=True,  # only `stop_ids` end an answer
                detokenize=False,
                output_kind=self._delta,
            )
            names[name] = self._engine.add_request(
                name, {"prompt_token_ids": tokens}, sampling, lora_request=self._lora
            )
        while self._engine.has_unfinished_requests():
            outputs = self._engine.step()
            _send(self._out, {"tokens": [[each.request_id, list(each.outputs[0].token_ids)] for each in outputs]})
            if not (reply := sys.stdin.readline()):
                raise EOFError
            if stopped := json.loads(reply):
                self._engine.abort_request([names[name] for name in stopped], internal=True)


def _send(out: TextIO, message: object) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
