"""The tree of errors: stable codes, messages, and a way through pickle."""

import pickle
from collections.abc import Iterator

import pytest

from core import errors
from core.db.jobs import LeaseLost
from core.errors import InvalidDataset, InvalidInput, SecureTuneError
from core.schemas.data import RowError


def everyone(kind: type[SecureTuneError] = SecureTuneError) -> Iterator[type[SecureTuneError]]:
    """A class and all below it in core.errors."""
    if kind.__module__ == errors.__name__:
        yield kind
        for child in kind.__subclasses__():
            yield from everyone(child)


@pytest.mark.parametrize("kind", list(everyone()))
def test_every_error_survives_pickling(kind: type[SecureTuneError]) -> None:
    error = kind("What is wrong and what to do.", code="a_code")
    error.param = "field"
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(back) is kind
    assert (str(back), back.message, back.code, back.param) == (str(error), error.message, "a_code", "field")


def test_rows_survive_pickling() -> None:
    rows = (RowError(line=3, column="messages[0].role", reason="unknown role"),)
    back = pickle.loads(pickle.dumps(InvalidDataset("Bad rows.", errors=rows, count=7)))  # noqa: S301
    assert (back.errors, back.count, back.param) == (rows, 7, "file")


def test_codes_are_distinct_and_the_tree_is_drawn() -> None:
    kinds = list(everyone())
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    drawn = errors.__doc__ or ""
    assert [kind.__name__ for kind in kinds if kind.__name__ not in drawn] == []


def test_a_code_given_stays_with_its_error() -> None:
    assert InvalidInput("No.", code="special").code == "special"
    assert InvalidInput("No.").code == "invalid_input"


def test_an_error_of_another_room_is_below_the_tree() -> None:
    assert issubclass(LeaseLost, errors.Interrupted)
    assert LeaseLost("Over.").code == "lease_lost"
