"""The API reference at `/docs`, where requests can be tried.

Users enter API keys there, so it loads nothing from other servers: Swagger UI comes from a wheel, and the page's policy
allows only files of this server and its one inline script. Not here: the OpenAPI document (api.main).
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_FILES = "/docs/static"
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def install(app: FastAPI) -> None:
    """Add the page to the app."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="securetune",
        swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{_FILES}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    body = bytes(page.body)
    headers = {"content-security-policy": _policy(body)}

    async def reference() -> HTMLResponse:
        return HTMLResponse(body, headers=headers)

    app.add_api_route("/docs", reference, include_in_schema=False)
    app.mount(_FILES, StaticFiles(directory=_swagger_ui()))


def _swagger_ui() -> Path:
    package = find_spec("fastapi_offline")  # only its files are needed: do not import it
    assert package is not None and package.origin is not None  # noqa: S101, PT018 - pyproject.toml names it
    return Path(package.origin).with_name("static")


def _policy(page: bytes) -> str:
    hashes = (b64encode(sha256(script).digest()).decode() for script in _INLINE.findall(page))
    scripts = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
