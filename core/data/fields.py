"""Fields of a row: texts that can be stored, marks that decide what is trained on, and fields that are refused.

A field that changes what should be learnt is honoured or refused by name. All other unknown fields are ignored and
counted. Not here: layouts (core.data.layouts), messages (core.data.chatrows).
"""

from collections.abc import Mapping

from core.data.jsontext import JsonProblem, StrictDecoder, clip, kind
from core.schemas.data import RowError

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
"""Characters without width, which do not make a text."""

_MEDIA = {
    "image": "images",
    "images": "images",
    "audio": "audio files",
    "audios": "audio files",
    "video": "videos",
    "videos": "videos",
}
_REFUSED = _MEDIA | {
    "chosen": "preference pairs of chosen and rejected answers",
    "rejected": "preference pairs of chosen and rejected answers",
    "loss_weight": "loss weights",
    "train_detail": "training on parts of a turn",
    "training_detail": "training on parts of a turn",
    "mask": "loss masks",
    "labels": "loss masks",
    "loss_mask": "loss masks",
    "refusal": "refusals beside the answer",
    "prefix": "answers that continue a prefix",
}
_MARKS = ("weight", "train", "training", "loss")
_THINKING = ("reasoning_content", "reasoning", "thinking")
_KNOWN = frozenset((*_MARKS, *_THINKING, *_REFUSED))


class InvalidRow(Exception):
    """A row cannot be used. It never leaves core.data."""

    def __init__(self, column: str | None, reason: str) -> None:
        super().__init__(reason)
        self.column = column
        self.reason = reason

    def at(self, line: int) -> RowError:
        """The error of the row that begins on this line."""
        return RowError(line=line, column=self.column, reason=self.reason)


class InvalidFile(InvalidRow):
    """A row shows that no row of the file can be used."""


def check_refused(holder: Mapping[str, object], prefix: str = "") -> None:
    """Refuse a row or turn with a field that cannot be honoured.

    Raises:
        InvalidRow: with the field's name.
    """
    for name in sorted(_REFUSED.keys() & holder.keys()):
        if not _is_empty(holder[name]) and holder[name] is not False:
            raise InvalidRow(f"{prefix}{name}", f"{_REFUSED[name]} are not supported; remove the field or the row")
    label = holder.get("label")
    if isinstance(label, bool) or label in (0, 1):
        raise InvalidRow(
            f"{prefix}label", "labels of good and bad answers (KTO) are not supported; keep the good rows, without it"
        )


def is_trained(holder: Mapping[str, object], prefix: str = "") -> bool:
    """Whether the marks of a row or turn let it be trained on.

    Raises:
        InvalidRow: a weight other than 0 and 1.
    """
    trained = True
    for name in _MARKS:
        value = holder.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or value not in (0, 1):
            raise InvalidRow(
                f"{prefix}{name}", f"expected 0 or 1, found {kind(value)}; other weights are not supported"
            )
        trained = trained and bool(value)
    return trained


def thinking(holder: Mapping[str, object], prefix: str = "") -> str | None:
    """What the assistant thought, from the field that has it."""
    found = {name: holder[name] for name in _THINKING if not _is_empty(holder.get(name))}
    if len(found) > 1:
        raise InvalidRow(
            f"{prefix}{min(found)}", f"two fields contain thinking, {' and '.join(sorted(found))}; keep one"
        )
    return next((text(value, f"{prefix}{name}") for name, value in found.items()), None)


def ignored(holder: Mapping[str, object], used: frozenset[str]) -> list[str]:
    """Names of the fields that are neither used nor marks, and not empty."""
    return [name for name in holder if name not in used and name not in _KNOWN and not _is_empty(holder[name])]


def text(value: object, where: str, *, may_be_empty: bool = False) -> str:
    """A text that every part of the service can store and send.

    Raises:
        InvalidRow: it is not a text, is empty, or has a character that cannot be stored.
    """
    if not isinstance(value, str):
        raise InvalidRow(where, f"expected text, found {kind(value)}")
    if "\0" in value:
        raise InvalidRow(where, f"there is a NUL at character {value.index(chr(0)) + 1}; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            place = f"half of a surrogate pair (U+{ord(value[error.start]):04X}) is at character {error.start + 1}"
            raise InvalidRow(where, f"{place}; UTF-8 cannot encode it") from None
    if not may_be_empty and is_blank(value):
        raise InvalidRow(where, "the text is empty")
    return value


def optional_text(holder: Mapping[str, object], name: str) -> str | None:
    """The text of a field; None if the field is missing or blank."""
    value = holder.get(name)
    if value is None:
        return None
    found = text(value, name, may_be_empty=True)
    return None if is_blank(found) else found


def is_blank(value: str) -> bool:
    """Whether a text has no visible character."""
    return not value.strip() or not value.strip(INVISIBLE + " \t\r\n\v\f")


def parsed(value: object, where: str) -> object:
    """A value, or the value that its text contains as JSON.

    Raises:
        InvalidRow: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    found = StrictDecoder().decode(value)
    if isinstance(found, JsonProblem):
        raise InvalidRow(where, f"expected JSON, found the text {clip(value, 30)}")
    return found


def listed(names: tuple[str, ...]) -> str:
    """Column names for a message, cut where there are many."""
    shown = ", ".join(clip(name, 30) for name in names[:8])
    return f"{shown}, ..." if len(names) > 8 else shown or "(none)"


def _is_empty(value: object) -> bool:
    return value is None or value in ("", "[]", "{}", [], {})
