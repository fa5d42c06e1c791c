"""Uploaded sets of prompts are named by what is in them, and found by the orders that name them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from core.db import prompt_sets
from core.db.models import PromptSet
from core.db.rows import add_upload, newest_first
from core.db.session import Session, Sessions, transaction
from core.errors import InvalidInput, NotFound
from core.schemas.job import PromptFile, UploadedFile
from core.schemas.prompts import ChosenPrompts, Layout, PromptFileSummary

NOBODY = "ps_" + "0" * 24


def add(
    session: Session, *, digest: str = "0" * 64, layout: Layout = "plain", harmful: int = 2, name: str = "p.csv"
) -> tuple[PromptSet, bool]:
    summary = PromptFileSummary(layout=layout, harmful=harmful, safe=3, categories={"fraud": 2}, left_out=1)
    return add_upload(
        session,
        PromptSet,
        id=prompt_sets.identity(digest, layout),
        name=name,
        layout=layout,
        sha256=digest,
        bytes=40,
        key="prompts/p",
        summary=summary.model_dump(),
    )


def test_the_same_upload_is_the_same_row(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        first, new = add(session, name="first.csv")
        again, new_again = add(session, name="second.csv")
        laid_out, new_laid_out = add(session, layout="xstest")
        other, new_other = add(session, digest="1" * 64)
    assert (new, new_again, new_laid_out, new_other) == (True, False, True, True)
    assert (again.id, again.name) == (first.id, "first.csv")
    assert len({first.id, laid_out.id, other.id}) == 3
    assert all(row.id.startswith("ps_") and len(row.id) == len(NOBODY) for row in (first, laid_out, other))
    assert laid_out.layout == "xstest"


def test_the_same_upload_at_once_is_one_row(sessions: Sessions) -> None:
    def upload(_time: int) -> tuple[str, bool]:
        with transaction(sessions) as session:
            row, new = add(session)
            return row.id, new

    with ThreadPoolExecutor(8) as pool:
        uploads = list(pool.map(upload, range(16)))
    assert len({set_id for set_id, _ in uploads}) == 1
    assert [new for _, new in uploads].count(True) == 1


def test_pages_are_newest_first_and_miss_nothing(sessions: Sessions) -> None:
    made: list[str] = []
    for number in range(5):
        with transaction(sessions) as session:
            made.append(add(session, digest=f"{number}" * 64)[0].id)
    with transaction(sessions) as session:
        first, more = newest_first(session, PromptSet, limit=2)
        rest, no_more = newest_first(session, PromptSet, limit=3, after=first[-1].id)
        assert newest_first(session, PromptSet, limit=0) == ([], True)
    assert [row.id for row in (*first, *rest)] == made[::-1]
    assert (more, no_more) == (True, False)
    with transaction(sessions) as session, pytest.raises(InvalidInput) as caught:
        newest_first(session, PromptSet, limit=1, after=NOBODY)
    assert (caught.value.code, caught.value.param) == ("unknown_cursor", "after")


def test_orders_find_the_files_of_uploaded_sets(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        row, _ = add(session)
        file = PromptFile(
            name=f"p.csv ({row.id})", layout="plain", source=UploadedFile(key="prompts/p", sha256="0" * 64)
        )
        assert prompt_sets.files(session, "auto") == prompt_sets.files(session, "builtin") == {}
        assert prompt_sets.files(session, ChosenPrompts(harmful="listed")) == {}
        assert prompt_sets.files(session, ChosenPrompts(harmful="listed", safe=row.id)) == {"safe": file}
        assert prompt_sets.files(session, ChosenPrompts(harmful=row.id, safe=row.id)) == {"harmful": file, "safe": file}


@pytest.mark.parametrize("name", [NOBODY, "ps_of_nobody"])
def test_an_order_that_names_no_set(sessions: Sessions, name: str) -> None:
    with transaction(sessions) as session, pytest.raises(NotFound, match=name) as caught:
        prompt_sets.files(session, ChosenPrompts(safe=name))
    assert caught.value.param == "security.prompts"


def test_an_order_that_names_a_set_for_what_it_does_not_have(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        row, _ = add(session, harmful=0)
        assert set(prompt_sets.files(session, ChosenPrompts(safe=row.id))) == {"safe"}
        with pytest.raises(InvalidInput, match="has no harmful prompts") as caught:
            prompt_sets.files(session, ChosenPrompts(harmful=row.id))
    assert (caught.value.code, caught.value.param) == ("invalid_prompt_set", "security.prompts")
