"""Credentials in rows are flagged and masked, placeholders are not, and the patterns take linear time.

The credentials here are made up when the tests run, so that none stands in the repository.
"""

import base64
import json
import random
import re
import string
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import Conversation
from core.schemas.data import Message
from core.schemas.screening import Finding
from core.screening import personal_data, secrets

CHANCE = random.Random(7)  # noqa: S311 - nothing real hangs on it
ALPHANUMERIC = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def some(alphabet: str, length: int) -> str:
    """Without what looks like a placeholder: no letter comes soon again."""
    return "".join(CHANCE.sample(alphabet * (length // len(alphabet) + 1), length))


def token(header: dict[str, str]) -> str:
    parts = [json.dumps(header), json.dumps({"iss": "us", "exp": 1893456000})]
    encoded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, some(ALPHANUMERIC, 43)])


def credentials() -> list[tuple[str, str]]:
    pem = "-----BEGIN {0}PRIVATE KEY-----\n" + some(ALPHANUMERIC, 60) + "\n" + "-----END {0}PRIVATE KEY-----"
    return [
        ("private_key", pem.format("")),
        ("private_key", pem.format("RSA ")),
        ("private_key", pem.format("OPENSSH ").replace("\n", "\\n")),
        ("aws_access_key", "AKIA" + some("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
        ("google_api_key", "AIza" + some(ALPHANUMERIC, 35)),
        ("google_oauth_secret", "GOCSPX-" + some(ALPHANUMERIC, 28)),
        ("github_token", "ghp_" + some(ALPHANUMERIC, 36)),
        ("github_token", "github_pat_" + some(ALPHANUMERIC, 22) + "_" + some(ALPHANUMERIC, 59)),
        ("gitlab_token", "glpat-" + some(ALPHANUMERIC, 20)),
        ("slack_token", "xoxb-" + "1029384756" + "-" + some(ALPHANUMERIC, 24)),
        ("slack_webhook", "https://hooks.slack.com/services/T0A1B2C3D/B0A1B2C3D/" + some(ALPHANUMERIC, 24)),
        ("stripe_key", "sk_live_" + some(ALPHANUMERIC, 24)),
        ("openai_key", "sk-" + some(ALPHANUMERIC, 20) + "T3Blbk" + "FJ" + some(ALPHANUMERIC, 20)),
        ("openai_key", "sk-proj-" + some(ALPHANUMERIC, 60) + "T3Blbk" + "FJ" + some(ALPHANUMERIC, 60)),
        ("anthropic_key", "sk-ant-api03-" + some(ALPHANUMERIC, 95)),
        ("huggingface_token", "hf_" + some(string.ascii_letters, 34)),
        ("npm_token", "npm_" + some(ALPHANUMERIC, 36)),
        ("sendgrid_key", "SG." + some(ALPHANUMERIC, 22) + "." + some(ALPHANUMERIC, 43)),
        ("twilio_key", "SK" + some(HEX, 32)),
        ("jwt", token({"alg": "HS256", "typ": "JWT"})),
        ("password_in_url", "postgres://app:kT9vQ2mZ@db.internal:5432/app"),
    ]


def row(*texts: str, line: int = 1) -> Conversation:
    messages = tuple(Message(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts))
    return Conversation(messages, line)


def find(*rows: Conversation) -> Sequence[Finding]:
    return secrets.find(rows, lambda _done, _total: None).findings


@pytest.mark.parametrize(("code", "secret"), credentials())
def test_credentials_are_flagged_and_masked(code: str, secret: str) -> None:
    for text in (secret, f"My key is '{secret}'.", f"KEY={secret}\nrest", f"first\n{secret}"):
        (finding,) = find(row("Hello", text, line=9))
        assert (finding.check, finding.line, finding.code) == ("secrets", 9, code)
        assert finding.reason.startswith("Turn 2 contains ")
        shown = finding.reason.rpartition("(")[2].removesuffix(").")
        assert shown.endswith("\u2026")
        assert len(shown) <= 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "OPENAI_API_KEY=your_api_key",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "AIza" + "A" * 35,
        "sk_live_" + "1234567890" * 3,
        "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
        "Keys begin with -----BEGIN PRIVATE KEY----- in PEM files.",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0."
        "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
        token({"typ": "none"}),
        "postgres://user:password@localhost/db",
        "https://user:pass@example.com",
        "ftp://name:<password>@host.org/",
        "https://github.com:443/a@b",
        "Read https://doi.org/10.1000/182 or mail me: a@b.org",
        "The hash is 5d41402abc4b2a76b9719d911017c592.",
        "xoxb- tokens are Slack's.",
    ],
)
def test_placeholders_are_not_flagged(text: str) -> None:
    assert find(row(text, text)) == []


def test_a_secret_in_the_middle_of_a_huge_turn_is_flagged() -> None:
    _, secret = credentials()[3]
    assert len(find(row("a b " * 250_000 + secret + " c d" * 250_000, "Yes"))) == 1


def test_each_row_has_one_finding() -> None:
    both = " ".join(secret for _, secret in credentials()[3:6])
    assert [finding.line for finding in find(row(both, both, line=2), row("a", "b", line=3), row(both, line=4))] == [
        2,
        4,
    ]


def unbounded(pattern: str) -> list[str]:
    """Repeats without an upper bound that can give back what they took: what quadratic time is made of."""
    bare = re.sub(r"\\.", "x", pattern)
    bare = re.sub(r"\[\^?.[^\]]*\]", "x", bare)
    bare = re.sub(r"(?:[*+?]|\{\d+(?:,\d*)?\})\+", "", bare)
    return re.findall(r"[*+]|\{\d+,\}", bare)


@pytest.mark.parametrize("pattern", [kind.pattern.pattern for kind in (*secrets._KINDS, *personal_data._KINDS)])
def test_no_pattern_backtracks_over_a_whole_text(pattern: str) -> None:
    assert unbounded(r"a+b(?:c|d*)[+*]\+e{2,}f++g{1,2}[^]*]h*+") == ["+", "*", "{2,}"]
    assert unbounded(pattern) == []


@pytest.mark.parametrize(
    "unit", ["a", "sk-", "eyJ", "eyJaaaaaaaaaaaa.", "://a", "://a:b@", "-----BEGIN PRIVATE KEY-----", "-us1"]
)
def test_crafted_texts_take_bounded_time(unit: str) -> None:
    find(row(unit * (1_000_000 // len(unit)), "Yes"))


@settings(max_examples=100)
@given(st.text(), st.sampled_from([kind.hints[0] for kind in secrets._KINDS]))
def test_nothing_raises(text: str, hint: str) -> None:
    find(row(f"{text}{hint}{text}", text))
