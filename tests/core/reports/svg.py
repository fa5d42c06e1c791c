"""Helpers for tests of pictures: the content of an SVG file, and the lightness of a colour."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from core.reports.pictures import Picture

_HEX = re.compile(r"#[0-9a-f]{6}")


def tree(picture: Picture) -> ElementTree.Element:
    """The parsed file."""
    return ElementTree.fromstring(picture.svg)  # noqa: S314 - see above


def names(picture: Picture) -> set[str]:
    """Names of the elements in it."""
    return {element.tag.rpartition("}")[2] for element in tree(picture).iter()}


def texts(picture: Picture) -> list[str]:
    """All texts in it."""
    return ["".join(element.itertext()) for element in tree(picture).iter() if element.tag.endswith("}text")]


def paths(picture: Picture, *, style: str) -> Iterator[str]:
    """The paths with this style."""
    for element in tree(picture).iter():
        if element.tag.endswith("}path") and style in element.get("style", ""):
            yield element.get("d", "")


def colours(picture: Picture) -> set[str]:
    """Every colour in it."""
    return set(_HEX.findall(picture.svg.lower()))


def lightness(colour: str) -> float:
    """Lightness of an sRGB colour (CIE L*), 0 for black to 100 for white."""
    linear = []
    for start in (1, 3, 5):
        value = int(colour[start : start + 2], 16) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance
