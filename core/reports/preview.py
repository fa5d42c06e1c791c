"""The preview of a dataset as one self-contained HTML page: no scripts, no external files.

Not here: what the preview has (core.schemas.preview), how it is computed (core.data.preview).
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

from jinja2 import Template

from core.reports import numbers
from core.reports.page import environment
from core.schemas.preview import Preview, PreviewToken


def html(preview: Preview, name: str) -> str:
    """Render the page of a dataset with this name."""
    return _template().render(preview=preview, name=name)


@cache
def _template() -> Template:
    filters = {"runs": _split_runs, "token": _show_token, "percent": numbers.percent, "plural": numbers.plural}
    return environment(**filters).get_template("preview.html")


def _split_runs(tokens: Sequence[PreviewToken]) -> list[tuple[bool, list[PreviewToken]]]:
    """Tokens that stand together and are trained on or not."""
    return [(trained, list(group)) for trained, group in groupby(tokens, key=lambda token: token.trained)]


def _show_token(text: str) -> str:
    """Text of a token in which a line end can be seen."""
    return text.replace("\n", "\u21b5\n")
