"""Extracts what exact match compares from an answer, so that equal strings mean the same.

Covers: numbers, chosen letters, whole answers. Not here: the value of fractions and formulas; units.
"""

import re
from decimal import Decimal
from typing import Literal
from unicodedata import category, normalize

from core.schemas.quality import Extraction

MARK = "####"
"""Precedes the final answer in GSM8K."""
_PLAIN = str.maketrans({"\u2212": "-", "\u2019": "'"})
"""Typographic minus and apostrophe, and their ASCII characters."""

_NUMBER = re.compile(
    r"(?P<fraction>(?<![\w.,/])[-+]?\d+/\d+(?![\w/]))"
    r"|(?P<sign>(?<![\w)])[-+])?(?:[$€£¥₹]\s?)?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)(?P<power>[eE][-+]?\d{1,3}(?!\w))?"
)
_LETTER = r"(?P<letter>[A-HJ]|I(?!\s+[a-z]))(?![\w'])"  # no "I think", no "A's"
# Quantifiers are possessive, so that text without a choice is rejected in linear time.
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
"""Patterns that name a choice, the clearest first; of several matches the last counts."""
_PART = re.compile(r"(?P<number>(?:(?<!\w)-)?\d+(?:[.,/:]\d+)*)|(?P<other>.)", re.DOTALL)


Kind = Literal["whole", "number", "choice"]


def resolve_extraction(extraction: Extraction, reference: str) -> Kind:
    """Replace `auto` by the kind that fits the row's own answer."""
    if extraction == "auto":
        return "number" if MARK in reference else "whole"
    return extraction


def extract(text: str, kind: Kind) -> str | None:
    """Extract the number, choice or whole answer from a text; None if it has none."""
    match kind:
        case "number":
            return extract_number(text)
        case "choice":
            return extract_choice(text)
        case "whole":
            return normalize_answer(text) or None


def extract_number(text: str) -> str | None:
    """Extract the first number after the last `####`, or else the last number.

    `1,234` is 1234, `$5.00` is 5, `50%` is 50; a fraction such as `3/4` stays as it is.
    """
    _, mark, final = text.rpartition(MARK)
    found = list(_NUMBER.finditer(final.translate(_PLAIN)))
    return _value(found[0 if mark else -1]) if found else None


def extract_choice(text: str) -> str | None:
    """Extract the chosen letter from A to J: `B`, `(b)`, `B) because`, `The answer is **B**`."""
    plain = text.translate(_PLAIN)
    for pattern in _CHOICES:
        if found := list(pattern.finditer(plain)):
            return found[-1]["letter"].upper()
    return None


def normalize_answer(text: str) -> str:
    """Remove case, punctuation and white space, except between and before the digits of a number."""
    parts = _PART.finditer(normalize("NFKC", text).casefold().translate(_PLAIN))
    return " ".join("".join(_keep_part(part) for part in parts).split())


def _value(match: re.Match[str]) -> str:
    if match["fraction"]:
        return match["fraction"].removeprefix("+")
    # Decimal.normalize would round to 28 digits.
    value = format(Decimal(match["digits"].replace(",", "") + (match["power"] or "")), "f")
    if "." in value:
        value = value.rstrip("0").rstrip(".")
    return f"-{value}" if match["sign"] == "-" and value != "0" else value


def _keep_part(part: re.Match[str]) -> str:
    if part["number"]:
        return f" {part['number']} "  # otherwise "1 5" would become "15"
    other = part["other"]
    return "" if other == "`" or category(other)[0] in "PZC" else other
