"""Strict JSON: what the standard library lets pass and a dataset must not hold."""

import re

import pytest

from core.data.jsontext import JsonProblem, StrictDecoder, clip, kind


def problem(text: str) -> JsonProblem:
    value = StrictDecoder().decode(text)
    assert isinstance(value, JsonProblem)
    return value


def test_values() -> None:
    assert StrictDecoder().decode('{"a": ["\\u00e9", 1, 2.5, null, true]}') == {"a": ["é", 1, 2.5, None, True]}


@pytest.mark.parametrize(
    ("text", "says", "line", "column"),
    [
        ('{"a": 1', "',' delimiter", 1, 8),
        ('{"a": "b', "Unterminated string", 1, 7),
        ('{"a": 1} x', "Extra data", 1, 10),
        ("{'a': 1}", "property name", 1, 2),
        ('{"a":\n  nope}', "Expecting value", 2, 3),
        ('{"a": "x\0y"}', r"control character.*\(U\+0000\)", 1, 9),
        ('{"a":\u00a01}', r"\(U\+00A0\)", 1, 6),
    ],
)
def test_syntax_errors_have_a_place(text: str, says: str, line: int, column: int) -> None:
    found = problem(text)
    assert found.syntax
    assert (found.line, found.column) == (line, column)
    assert re.search(says, found.reason)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "duplicate key 'c'"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
    ],
)
def test_values_that_are_no_json(text: str, says: str) -> None:
    found = problem(text)
    assert says in found.reason
    assert not found.syntax


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_deep_nesting_is_an_error_not_a_crash(bracket: str) -> None:
    assert "nested too deeply" in problem(bracket * 100_000).reason


def test_one_text_does_not_taint_the_next() -> None:
    decoder = StrictDecoder()
    assert isinstance(decoder.decode('{"a": NaN}'), JsonProblem)
    assert decoder.decode('{"a": 1}') == {"a": 1}


def test_many_keys_with_one_twice_is_quick() -> None:
    text = "{" + ",".join(f'"{index}": 0' for index in range(100_000)) + ', "7": 1}'
    assert "duplicate key '7'" in problem(text).reason


def test_words_for_values() -> None:
    assert [kind(value) for value in (None, True, 1, 1.5, "a", [1], {"a": 1})] == [
        "null",
        "true or false",
        "a number",
        "a number",
        "text",
        "a list",
        "an object",
    ]


def test_clip_is_short_and_safe_to_print() -> None:
    assert clip("a" * 100, 5) == "'aaaaa...'"
    assert clip("\ud800\n") == "'\\ud800\\n'"
