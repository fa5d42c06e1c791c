"""Makes text from a job safe to display: shows invisible characters, cuts long text and folds a model's thinking.

Not here: escaping for HTML (the template engine), Markdown (core.reports.card) and SVG (core.reports.pictures).
"""

import unicodedata

from core.thinking import split_thinking

_ESCAPED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode categories: control, format, surrogate, line separator, paragraph separator."""
_UNESCAPED = frozenset("\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")
"""Line breaks and tabs are visible, and joiners are part of the spelling of many scripts."""


def visible(text: str) -> str:
    """Replace every invisible control or format character with its code point, such as `[U+202E]`.

    Control characters can end a line or a string where they are displayed, and bidirectional ones can make text read
    differently than it is stored (CVE-2021-42574).
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each if each in _UNESCAPED or unicodedata.category(each) not in _ESCAPED else f"[U+{ord(each):04X}]"
        for each in text
    )


def one_line(text: str) -> str:
    """Collapse all whitespace to single spaces, and show invisible characters."""
    return visible(" ".join(text.split()))


def cut(text: str, length: int) -> str:
    """Cut text to a length in characters, and note how many are left out."""
    left = len(text) - length
    return text if left <= 0 else f"{text[:length]} [... {left} more characters]"


def fold_thinking(text: str) -> str:
    """Replace a model's thinking by its length, so that the answer after it is shown when the text is cut."""
    split = split_thinking(text, opened=False)
    return (
        text if split.cut or not split.thinking else f"[{len(split.thinking)} characters of thinking]\n{split.answer}"
    )
