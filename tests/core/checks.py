"""Used by tests of model checks: a result as a worker stores it, for the testbed."""

from core.catalog import TESTBED
from core.modelfiles.state import entry_digest, files_digest
from core.schemas.job import CheckRequest
from core.schemas.memory import MapShape, Memory, ModelShape
from core.schemas.modelcheck import (
    AnswerMemory,
    ModelCheck,
    ModuleType,
    RefusalCheck,
    RefusalRate,
    Setting,
    TemplateCheck,
    TrainingMemory,
)
from core.schemas.results import ModelIdentity
from core.schemas.speeds import ModelSpeeds

MEMORY = Memory(
    weights=6_700_000, adapter=10, gradients=10, optimizer=20, activations=60, logits=0, overhead=0, total=6_700_100
)
ESTIMATE = TrainingMemory(method="lora", weights="float32", batch_size=4, length=256, memory=MEMORY, fits=True)
REFUSALS = RefusalCheck(
    prompts="testbed",
    max_new_tokens=64,
    harmful=RefusalRate(value=0.96, low=0.865, high=0.989, n=50, undecided=1),
    safe=RefusalRate(value=0.0, low=0.0, high=1.0, n=0, undecided=0),
    protectable=True,
    meaning="There is something to protect.",
    refused_example="I won't help with that.",
)
CHECK = ModelCheck(
    request=CheckRequest(),
    entry_sha256=entry_digest(TESTBED),
    state_sha256=files_digest(TESTBED.source),
    model=ModelIdentity(
        name="testbed", source="folder model", sha256="8" * 64, parameters=1_672_832, architecture="LlamaForCausalLM"
    ),
    weights="float32",
    device="cpu",
    warnings=(),
    shape=ModelShape(
        parameters=1_672_832,
        layers=6,
        hidden=128,
        intermediate=384,
        heads=4,
        kv_heads=4,
        head_size=32,
        vocabulary=1536,
        context=1024,
        tied=False,
        maps=(MapShape(type="q", outputs=128, inputs=128, count=6),),
    ),
    modules=(ModuleType(type="q", layers=6, shapes=("128 x 128",), parameters=98_304, biases=0),),
    template=TemplateCheck(
        example="<|user|>Hello<|end|><|assistant|>[[Hi.<|end|>]]",
        system_turns=True,
        tools=False,
        thinking=False,
        stop_tokens=("<|end|>",),
    ),
    memory=(ESTIMATE,),
    answers=(AnswerMemory(length=256, bytes_per_answer=1_572_864, limit=1 << 30),),
    refusals=REFUSALS,
    speeds=ModelSpeeds(
        model="testbed",
        sha256="8" * 64,
        parameters=1_672_832,
        device="CPU (Test), 1 threads",
        memory_bytes=16_000_000_000,
        speeds=(),
    ),
    answer_tokens_per_second=500.0,
    training_tokens_per_second=None,
    settings=(Setting(name="training.method", value="lora", reason="It fits."),),
)
