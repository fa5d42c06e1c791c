"""The allow-list names folders and pinned commits, and nothing else."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.schemas.models import BaseModelEntry, FolderSource, HubSource

PINNED = {"kind": "hub", "id": "meta-llama/Llama-2-7b-chat-hf", "revision": "0" * 40}


def test_both_kinds_of_source() -> None:
    hub = BaseModelEntry.model_validate({"name": "llama-2", "source": PINNED})
    assert isinstance(hub.source, HubSource)
    folder = BaseModelEntry.model_validate({"name": "own", "source": {"kind": "folder", "path": "/models/own"}})
    assert folder.source == FolderSource(path=Path("/models/own"))
    for entry in (hub, folder):
        assert BaseModelEntry.model_validate_json(entry.model_dump_json()) == entry
        assert 0 < entry.learning_rate < 1e-2


@pytest.mark.parametrize(
    "source",
    [
        PINNED | {"revision": "main"},
        PINNED | {"revision": "0" * 39},
        PINNED | {"revision": "0" * 40 + "\n"},
        PINNED | {"id": "no-owner"},
        PINNED | {"id": "a/b/c"},
        PINNED | {"id": "../b"},
        PINNED | {"id": "https://huggingface.co/a/b"},
        {"kind": "url", "id": "a/b"},
        {"path": "/models/own"},
    ],
)
def test_a_source_that_could_change_or_lead_elsewhere_is_refused(source: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        BaseModelEntry.model_validate({"name": "own", "source": source})
