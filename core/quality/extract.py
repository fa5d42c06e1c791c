"""What an answer says, in a form that can be compared for being exactly the same.

Covers: numbers, chosen letters, whole answers. Not here: what a fraction or a formula is worth; units.
"""

import re
from decimal import Decimal
from typing import Literal
from unicodedata import category, normalize

from core.schemas.quality import Extraction

MARK = "####"
"""Stands before the final answer in GSM8K."""
_PLAIN = str.maketrans({"\u2212": "-", "\u2019": "'"})
"""Minus and apostrophe as books print them, to those of keyboards."""

_NUMBER = re.compile(
    r"(?P<fraction>(?<![\w.,/])[-+]?\d+/\d+(?![\w/]))"
    r"|(?P<sign>(?<![\w)])[-+])?(?:[$€£¥₹]\s?)?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)(?P<power>[eE][-+]?\d{1,3}(?!\w))?"
)
_LETTER = r"(?P<letter>[A-HJ]|I(?!\s+[a-z]))(?![\w'])"  # no "I think", no "A's"
# Runs are possessive: what is no choice must not be tried in every way to split it.
_CHOICES = (
    re.compile(r"^\W*+(?P<letter>[A-Ja-j])[^\w\n]*+(?:\n|$)"),
    re.compile(
        r"(?:(?i:answer|(?:correct|right|best)\s++(?:choice|option))\W*+(?i:is\b|would\s++be\b)?+\W*+"
        rf"(?i:(?:option|choice)\b)?+\W*+|\\boxed{{\W*+){_LETTER}"
    ),
    re.compile(r"^\W*+(?:(?i:option|choice)\W*+)?+(?P<letter>[A-Ja-j])[).:,\]](?=\W|$)"),
    re.compile(r"[(\[](?P<letter>[A-J])[)\]]"),
    re.compile(r"(?<![\w'])(?<!not )(?P<letter>[A-J])\W*+$"),
)
"""Ways of naming a choice, the clearest first; of several places the last counts."""
_PART = re.compile(r"(?P<number>(?:(?<!\w)-)?\d+(?:[.,/:]\d+)*)|(?P<other>.)", re.DOTALL)


def way_of(extract: Extraction, reference: str) -> Literal["whole", "number", "choice"]:
    """What is compared: `auto` is decided by the row's own answer."""
    if extract == "auto":
        return "number" if MARK in reference else "whole"
    return extract


def extracted(text: str, way: Literal["whole", "number", "choice"]) -> str | None:
    """What a text says, so that equal strings mean the same; None where it says nothing of that kind."""
    match way:
        case "number":
            return number(text)
        case "choice":
            return choice(text)
        case "whole":
            return whole(text) or None


def number(text: str) -> str | None:
    """The first number after the last `####`, or else the last one: `1,234` as 1234, `$5.00` as 5, `50%` as 50.

    A fraction such as `3/4` stays as it is written.
    """
    _, mark, final = text.rpartition(MARK)
    found = list(_NUMBER.finditer(final.translate(_PLAIN)))
    return _value(found[0 if mark else -1]) if found else None


def choice(text: str) -> str | None:
    """The letter from A to J that is chosen: `B`, `(b)`, `B) because`, `The answer is **B**`."""
    plain = text.translate(_PLAIN)
    for pattern in _CHOICES:
        if found := list(pattern.finditer(plain)):
            return found[-1]["letter"].upper()
    return None


def whole(text: str) -> str:
    """The text without case, punctuation and white space, but for what is between or before the digits of a number."""
    parts = _PART.finditer(normalize("NFKC", text).casefold().translate(_PLAIN))
    return " ".join("".join(_kept(part) for part in parts).split())


def _value(match: re.Match[str]) -> str:
    if match["fraction"]:
        return match["fraction"].removeprefix("+")
    # Not `normalize`, which rounds to 28 digits.
    value = format(Decimal(match["digits"].replace(",", "") + (match["power"] or "")), "f")
    if "." in value:
        value = value.rstrip("0").rstrip(".")
    return f"-{value}" if match["sign"] == "-" and value != "0" else value


def _kept(part: re.Match[str]) -> str:
    if part["number"]:
        return f" {part['number']} "  # else 1 5 would be 15
    other = part["other"]
    return "" if other == "`" or category(other)[0] in "PZC" else other
