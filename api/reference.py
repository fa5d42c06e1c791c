"""The page for reading and trying the API, at `/docs`.

API keys are typed into it, so nothing of anybody else's is loaded: Swagger UI comes from a wheel, and its policy allows
this server's own files and the one script on the page. Not here: what the page shows (the OpenAPI document).
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
    """Give the app its page."""
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
    package = find_spec("fastapi_offline")  # its files only: importing it would load what is not used here
    assert package is not None and package.origin is not None  # noqa: S101, PT018 - pyproject.toml names it
    return Path(package.origin).with_name("static")


def _policy(page: bytes) -> str:
    hashes = (b64encode(sha256(script).digest()).decode() for script in _INLINE.findall(page))
    scripts = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
