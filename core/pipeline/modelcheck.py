"""The stages of a check of a base model: template, refusals, a short training, and the result with its file.

Covers: what is measured on the loaded model. Not here: recommended settings (core.pipeline.recommend), estimates of
memory (core.memory), the order of the stages (core.pipeline.run).
"""

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from core.attacks.prompts import choose_prompts
from core.data import Conversation
from core.data.encoded import Encoded
from core.data.preview import masked_sample
from core.data.template import encode
from core.data.turns import ChatTemplate
from core.errors import InvalidInput, InvalidModel
from core.judges.interface import Case
from core.judges.rules import NAME, rules_judge
from core.lm import adapter
from core.lm.engine import max_cache_bytes
from core.lm.generate import answer
from core.lm.load import BaseModel
from core.lm.modules import Module, by_map, own_parameters, weight_of
from core.memory import cache_bytes, estimate_memory, fits
from core.modelfiles.reading import Problem
from core.modelfiles.shape import read_shape
from core.pipeline.stages import Stages
from core.reports.view import nothing_to_protect
from core.schemas.data import Message
from core.schemas.evaluation import DECIDED, Figure
from core.schemas.job import BASE_RUN, CheckAssignment, CheckSpec
from core.schemas.memory import DeviceKind, ModelShape, WeightFormat
from core.schemas.modelcheck import (
    RESULT,
    AnswerMemory,
    ModelCheck,
    ModuleType,
    RefusalCheck,
    RefusalRate,
    TemplateCheck,
    TrainingMemory,
)
from core.schemas.results import StoredFile
from core.schemas.security import SecuritySpec
from core.schemas.training import LearningPlan, LoraSpec, Method, TrainingSpec
from core.stats import wilson
from core.storage import ArtifactStore
from core.thinking import split_thinking
from core.training import loop

_MAX_NEW_TOKENS = 64
"""Length of an answer in tokens: a refusal shows in the first sentence."""
_STEPS = 3
_EXAMPLE = (
    Message(role="system", content="Answer in one sentence."),
    Message(role="user", content="What is a gradient?"),
    Message(role="assistant", content="The direction in which a function rises fastest."),
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up_word",
        "description": "Looks up a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
_EXAMPLE_CHARACTERS = 200


def kind_of(base: BaseModel) -> DeviceKind:
    """Kind of device that the model is on."""
    return "cuda" if base.device.type == "cuda" else "cpu"


def shape_of(base: BaseModel) -> ModelShape:
    """The sizes of a loaded model, by its files.

    Raises:
        InvalidModel: the files do not state them.
    """
    found = read_shape(base.folder)
    if isinstance(found, Problem):
        raise InvalidModel(f"The base model {base.identity.name!r} {found.text}", code=found.code, param="base_model")
    return found


def list_modules(base: BaseModel, modules: Sequence[Module]) -> tuple[ModuleType, ...]:
    """The modules by type, in the order of the first layer."""
    maps = by_map(modules)
    found: list[ModuleType] = []
    for kind in dict.fromkeys(module.type for module in modules):
        same = [module for module in modules if module.type == kind]
        shapes = Counter(_shape(base, module) for module in same)
        # A bias belongs to a whole map; each of its parts has as many biases as outputs.
        biases = sum(
            sum(len(run) for run in module.rows) if module.rows is not None else parameter.numel()
            for module in same
            for parameter, _ in own_parameters(base.model, maps[module.map][0])[1:]
        )
        found.append(
            ModuleType(
                type=kind,
                layers=len({module.layer for module in same}),
                shapes=tuple(shapes),
                parameters=sum(module.parameters for module in same),
                biases=biases,
            )
        )
    return tuple(found)


def describe_template(base: BaseModel) -> TemplateCheck:
    """What the chat template makes of a conversation, and what it has a place for."""
    template = ChatTemplate(base.tokenizer)
    messages = _EXAMPLE if template.has_system else _EXAMPLE[1:]
    return TemplateCheck(
        example=masked_sample(encode(Conversation(messages, 0), base.tokenizer, max_length=512)[0], base.tokenizer),
        system_turns=template.has_system,
        tools=_takes_tools(base),
        thinking=template.has_thinking,
        stop_tokens=tuple(str(base.tokenizer.decode([token])) for token in base.stop_ids),
    )


def measure_refusals(base: BaseModel, spec: CheckSpec, stages: Stages) -> tuple[RefusalCheck, float | None]:
    """How the model answers probe prompts, and the tokens that it generates per second."""
    prompts = choose_prompts(SecuritySpec(), base.folder)
    harmful, safe = prompts.probe.harmful[: spec.prompts], prompts.probe.safe[: spec.prompts]
    texts = [*harmful, *safe]
    started = time.monotonic()
    with stages.meter.measure(
        "answer", calls=len(texts), amount=len(texts) * _MAX_NEW_TOKENS, precision=base.weights, method="transformers"
    ):
        answers = answer(
            base,
            base.model,
            [[Message(role="user", content=text)] for text in texts],
            max_new_tokens=_MAX_NEW_TOKENS,
            on_progress=partial(stages.report_progress, "prompt"),
        )
    seconds = time.monotonic() - started
    bare = ["" if text is None else split_thinking(text, opened=False).answer for text in answers]
    cases = [
        Case(behaviour=text, answer=said, safe=place >= len(harmful))
        for place, (text, said) in enumerate(zip(texts, bare, strict=True))
    ]
    verdicts = [each.verdict for each in rules_judge().judge(cases, on_progress=lambda _done, _total: None).judgements]
    refused = _rate(verdicts[: len(harmful)])
    example = next((said for said, verdict in zip(bare, verdicts, strict=True) if verdict == "refused"), None)
    generated = sum(len(base.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in answers if text)
    check = RefusalCheck(
        prompts=prompts.name,
        max_new_tokens=_MAX_NEW_TOKENS,
        harmful=refused,
        safe=_rate(verdicts[len(harmful) :]),
        protectable=(protectable := _is_protectable(refused)),
        meaning=_explain(refused, protectable),
        refused_example=example[:_EXAMPLE_CHARACTERS] if example else None,
    )
    return check, generated / seconds if generated else None


def measure_training(base: BaseModel, modules: Sequence[Module], spec: CheckSpec, stages: Stages) -> float:
    """Tokens per second of a few LoRA steps on text of the prompt set. The adapter is removed afterwards."""
    length = min(base.context, *spec.lengths)
    benign = choose_prompts(SecuritySpec(), base.folder).probe.benign
    words = base.tokenizer("\n".join(benign), add_special_tokens=False)["input_ids"]
    ids = np.resize(np.array(words, dtype=np.int32), length)
    rows = [Encoded(ids, ids.astype(np.int32), line=0)]
    training = TrainingSpec(steps=_STEPS, batch_size=1, lora=LoraSpec(rank=spec.lora_rank), warmup_ratio=0.0)
    plan = LearningPlan(strategy="check", scales={module.name: 1.0 for module in modules})
    with adapter.attached(base.model, modules, training.lora, seed=0) as tuned:
        trained = loop.train(
            tuned,
            rows,
            plan,
            training,
            learning_rate=1e-5,
            pad_id=base.pad_id,
            on_step=lambda step, total: stages.report_progress("step", step.step, total),
            meter=stages.meter,
        )
    return _STEPS * length / trained.seconds


def estimate_all(
    shape: ModelShape, spec: CheckSpec, *, device: DeviceKind, weights: WeightFormat, memory_bytes: int
) -> tuple[TrainingMemory, ...]:
    """Estimates for every method that the device can run, and every ordered batch size and length."""
    methods: list[tuple[Method, WeightFormat]] = [("lora", weights), ("full", weights)]
    if device == "cuda":
        methods.append(("qlora", "nf4"))
    found: list[TrainingMemory] = []
    for method, stored in methods:
        for length in _lengths(spec, shape):
            for rows in sorted(set(spec.batch_sizes)):
                memory = estimate_memory(
                    shape,
                    method=method,
                    lora_rank=spec.lora_rank,
                    targets="all",
                    rows_per_pass=rows,
                    length=length,
                    weights=stored,
                    device=device,
                )
                found.append(
                    TrainingMemory(
                        method=method,
                        weights=stored,
                        batch_size=rows,
                        length=length,
                        memory=memory,
                        fits=fits(memory, memory_bytes),
                    )
                )
    return tuple(found)


def estimate_answers(base: BaseModel, shape: ModelShape, spec: CheckSpec) -> tuple[AnswerMemory, ...]:
    """Memory of keys and values, by length."""
    limit, weights = max_cache_bytes(base), base.weights
    return tuple(
        AnswerMemory(
            length=length, bytes_per_answer=cache_bytes(shape, rows=1, length=length, weights=weights), limit=limit
        )
        for length in _lengths(spec, shape)
    )


def store_check(check: ModelCheck, assignment: CheckAssignment, store: ArtifactStore) -> StoredFile:
    """Store the result as `model-check.json`."""
    key = f"jobs/{assignment.job_id}/attempts/{assignment.attempt}/{RESULT}"
    data = check.model_dump_json(indent=1).encode()
    return store.put(key, data, name=RESULT, media_type="application/json", gated=False)


def _lengths(spec: CheckSpec, shape: ModelShape) -> list[int]:
    """The ordered lengths within the model's context, each once."""
    return sorted({min(each, shape.context or each) for each in spec.lengths})


def _shape(base: BaseModel, module: Module) -> str:
    weight = weight_of(base.model, module)
    copies = weight.shape[0] if weight.ndim == 3 else 1
    outputs = weight.shape[module.axis] if module.rows is None else sum(len(run) for run in module.rows)
    inputs = module.parameters // (outputs * copies)
    return f"{outputs} x {inputs}" if weight.ndim == 2 else f"{copies} x {outputs} x {inputs}"


def _takes_tools(base: BaseModel) -> bool:
    try:
        encode(Conversation(_EXAMPLE[1:], 0, tools=(_TOOL,)), base.tokenizer, max_length=2048)
    except InvalidInput:
        return False
    return True


def _rate(verdicts: Sequence[str]) -> RefusalRate:
    decided = [verdict for verdict in verdicts if verdict in DECIDED]
    value, low, high = wilson(sum(verdict != "complied" for verdict in decided), len(decided))
    return RefusalRate(value=value, low=low, high=high, n=len(decided), undecided=len(verdicts) - len(decided))


def _is_protectable(refused: RefusalRate) -> bool | None:
    """Whether a job would not warn that there is nothing to protect; None if no answer was decided."""
    figure = Figure(
        run=BASE_RUN,
        suite="direct",
        metric="attack_success_rate",
        judge=NAME,
        value=1 - refused.value,
        n=refused.n,
        low=1 - refused.high,
        high=1 - refused.low,
    )
    return nothing_to_protect([figure]) is None if refused.n else None


def _explain(refused: RefusalRate, protectable: bool | None) -> str:
    complies = f"The model complies with {100 * (1 - refused.value):.0f} % of harmful requests without an attack."
    if protectable is None:
        return "No answer could be decided, so it is not known whether there is something to protect."
    if not protectable:
        return (
            f"{complies} Training can hardly make it less safe, so no strategy or safeguard can be shown to protect "
            "it. Choose a safety-aligned chat model, or use the figures of a job for the task only."
        )
    return (
        f"{complies} Training can lose its refusals, so there is something to protect. The attacks of a job show what "
        "is left of them."
    )
