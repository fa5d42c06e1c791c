"""The template engine of pages: everything that comes from a job or a dataset is escaped.

Not here: what the pages show (core.reports.render, core.reports.preview).
"""

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from core.reports.text import visible


def environment(**filters: Callable[..., object]) -> Environment:
    """Jinja's environment for the templates of this package, with the filter `code` and these filters."""
    made = Environment(
        loader=PackageLoader("core.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({"code": _code, **filters})
    return made


def _show(value: object) -> object:
    """Show the invisible characters of every plain text that a template writes."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _code(text: str) -> Markup:
    """Escape text, and set the parts between backticks as code."""
    parts = visible(text).split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )
