"""The page for trying the API loads its own server's files and nothing else."""

import re
from base64 import b64encode
from hashlib import sha256

from tests.api.conftest import Service

LINK = re.compile(r'(?:src|href)="([^"]*)"')


def test_the_page_loads_what_is_here_and_nothing_else(service: Service) -> None:
    page = service.http.get("/docs")
    links = LINK.findall(page.text)
    assert [link for link in links if not link.startswith(("/", "data:"))] == []
    own = [link for link in links if link.startswith("/")]
    assert len(own) == 2
    for link in own:
        reply = service.http.get(link)
        assert (reply.status_code, reply.headers["x-content-type-options"]) == (200, "nosniff")
        assert reply.headers["content-type"].partition(";")[0] in {"text/javascript", "text/css"}


def test_its_policy_knows_no_other_host_and_only_the_one_script(service: Service) -> None:
    page = service.http.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "http" not in policy
    (scripts,) = [part for part in policy.split("; ") if part.startswith("script-src")]
    (inline,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert scripts == f"script-src 'self' 'sha256-{b64encode(sha256(inline.encode()).digest()).decode()}'"


def test_there_is_no_way_out_of_its_folder(service: Service) -> None:
    for path in ("/docs/static/../consts.py", "/docs/static/%2e%2e/consts.py", "/docs/static/", "/docs/static/x"):
        reply = service.http.get(path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
