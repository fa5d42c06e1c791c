"""What stored results depend on, and which learning rate a job has."""

from dataclasses import replace

from core.catalog import TESTBED
from core.pipeline.context import JobContext, watched_prompts
from core.schemas.job import Assignment
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import SPEC, assign, upload, with_training


def test_inputs_depend_on_model_data_and_rate(prepared: JobContext, store: ArtifactStore) -> None:
    here = prepared.assignment
    cheaper = TESTBED.model_copy(update={"learning_rate": 5e-4})
    weights = replace(prepared.base, identity=prepared.base.identity.model_copy(update={"sha256": "0" * 64}))

    def other(assignment: Assignment) -> JobContext:
        return replace(prepared, assignment=assignment)

    jobs = [
        prepared,
        replace(prepared, entry=cheaper),
        replace(prepared, base=weights),
        other(assign(SPEC, upload(store, conversations(9)))),
        other(assign(SPEC, here.dataset, validation=upload(store, conversations(3)))),
        other(assign(with_training(seed=1), here.dataset)),
    ]
    found = [job.job_inputs for job in jobs]
    assert all(one != another for index, one in enumerate(found) for another in found[:index])
    assert other(assign(SPEC, here.dataset, job_id="job_" + "f" * 24, attempt=7)).job_inputs == found[0]


def test_watched_refusals_are_of_probe_prompts_and_every_second_one_is_framed(prepared: JobContext) -> None:
    probe = prepared.prompts.probe.harmful
    leaky = (prepared.prompts.evaluation.harmful[0].text, *probe)
    prompts = prepared.prompts.model_copy(
        update={"probe": prepared.prompts.probe.model_copy(update={"harmful": leaky})}
    )
    watched = watched_prompts(prompts)
    assert len(watched) == 32
    assert watched[::2] == probe[:32:2]
    for text, request in zip(watched[1::2], probe[1:32:2], strict=True):
        assert request in text
        assert text != request
    assert len({text.replace(request, "") for text, request in zip(watched[1::2], probe[1:32:2], strict=True)}) == 15


def test_the_rate_of_the_job_takes_precedence(prepared: JobContext) -> None:
    assert prepared.learning_rate == TESTBED.learning_rate
    own = assign(with_training(learning_rate=0.5), prepared.assignment.dataset)
    assert replace(prepared, assignment=own).learning_rate == 0.5
