"""Text that came from a job, made safe to look at: what cannot be seen is shown, and long texts are cut.

Covers: control and bidirectional characters, cutting. Not here: escaping for HTML (the template engine), Markdown
(core.reports.card) and SVG (core.reports.pictures).
"""

import unicodedata

_SHOWN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode's control, format, surrogate, line and paragraph separator characters."""
_KEPT = frozenset("\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")
"""Line breaks and tabs are seen, and joiners belong to the spelling of many scripts."""


def visible(text: str) -> str:
    """The text with every character that acts unseen written as its number, such as `[U+202E]`.

    Control characters can end a line or a string where it is shown, and bidirectional ones can make it read otherwise
    than it is stored (CVE-2021-42574). Text without any comes back as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_numbered(each) for each in text)


def one_line(text: str) -> str:
    """The text on one line, every run of spaces and line breaks as one space."""
    return visible(" ".join(text.split()))


def cut(text: str, most: int) -> str:
    """At most so many characters of the text, and a note of how many are left out."""
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]} [... {left} more characters]"


def _numbered(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _SHOWN:
        return character
    return f"[U+{ord(character):04X}]"
