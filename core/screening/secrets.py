"""Keys, tokens and passwords in training data: a tuned model repeats what it was trained on.

Covers: credentials whose issuer gave them a form of their own, so that they are known by it: prefixes, lengths and
alphabets after the issuers' documentation; private keys in PEM; passwords in addresses. Placeholders, documented
examples and runs of one character are no finding. Every pattern begins with a fixed text or at the edge of a run, and
is bounded or gives nothing back, so time grows with the text alone.

A table of our own and not detect-secrets: its last release (1.5.0) is of May 2024 and lacks Google's, Anthropic's,
Hugging Face's and GitHub's fine-grained keys, it brings an HTTP client to ask the issuers with, and two of its patterns
(OpenAI, JWT) take quadratic time on crafted text. Not here: passwords that only their context shows.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import SECRETS, Finding
from core.screening.check import Found, RowCheck
from core.screening.text import first_findings, masked


def _any_body(_secret: str) -> bool:
    return True


@dataclass(frozen=True)
class _Form:
    """One kind of credential."""

    code: str
    name: str
    hints: tuple[str, ...]
    """Texts of which one is in every such credential, to skip most turns at once."""
    pattern: re.Pattern[str]
    """Its group `body` is what must not look like a placeholder."""
    holds: Callable[[str], bool] = _any_body
    """Whether what was found is one indeed."""


def _form(code: str, name: str, hints: str, pattern: str, holds: Callable[[str], bool] = _any_body) -> _Form:
    return _Form(code, name, tuple(hints.split()), re.compile(pattern), holds)


def _is_token(secret: str) -> bool:
    """Whether the first part of a JSON web token names an algorithm."""
    first = secret.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


_EDGE, _STOP = r"(?<![\w-])", r"(?![\w-])"
_FORMS = (
    _form(
        "private_key",
        "a private key",
        "PRIVATE",
        r"-----BEGIN (?:(?:RSA|DSA|EC|OPENSSH|ENCRYPTED|PGP|SSH2 ENCRYPTED) )?PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\s|\\n|\\r){1,8}(?:[A-Z][\w-]{1,30}: [^\n]{1,200}\n){0,4}\s{0,4}(?P<body>[A-Za-z0-9+/=]{32,80})",
    ),
    _form(
        "aws_access_key",
        "an AWS access key id",
        "AKIA ASIA",
        r"(?<![A-Za-z0-9/+])(?:AKIA|ASIA)(?P<body>[A-Z2-7]{16})(?![A-Za-z0-9/+])",
    ),
    _form("google_api_key", "a Google API key", "AIza", rf"{_EDGE}AIza(?P<body>[\w-]{{35}}){_STOP}"),
    _form(
        "google_oauth_secret", "a Google OAuth client secret", "GOCSPX-", rf"{_EDGE}GOCSPX-(?P<body>[\w-]{{28}}){_STOP}"
    ),
    _form("google_token", "a Google access token", "ya29.", rf"{_EDGE}ya29\.(?P<body>[\w-]{{60,2000}}+){_STOP}"),
    _form(
        "github_token",
        "a GitHub token",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"(?<!\w)(?:gh[pousr]_(?P<body>[A-Za-z0-9]{36})(?!\w)|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?!\w))",
    ),
    _form("gitlab_token", "a GitLab token", "glpat-", rf"{_EDGE}glpat-(?P<body>[\w-]{{20}}){_STOP}"),
    _form(
        "slack_token",
        "a Slack token",
        "xoxb- xoxp- xoxa- xoxr- xoxs- xapp-",
        rf"{_EDGE}(?:xox[bpars]-\d{{8,14}}-|xapp-\d-[A-Z0-9]{{8,14}}-\d{{8,14}}-)(?P<body>[A-Za-z0-9-]{{20,200}}+){_STOP}",
    ),
    _form(
        "slack_webhook",
        "a Slack webhook",
        "hooks.slack.com/services/",
        r"hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/(?P<body>[A-Za-z0-9]{24})(?![A-Za-z0-9])",
    ),
    _form(
        "stripe_key",
        "a Stripe live key",
        "sk_live_ rk_live_",
        rf"{_EDGE}[sr]k_live_(?P<body>[A-Za-z0-9]{{24,247}}+){_STOP}",
    ),
    _form(
        "openai_key",
        "an OpenAI key",
        "T3BlbkFJ",
        rf"{_EDGE}sk-(?:(?:proj|svcacct|admin)-)?(?P<body>[\w-]{{20,200}}){_STOP}",
        lambda secret: "T3BlbkFJ" in secret,
    ),
    _form(
        "anthropic_key",
        "an Anthropic key",
        "sk-ant-",
        rf"{_EDGE}sk-ant-[a-z]{{2,8}}\d\d-(?P<body>[\w-]{{80,120}}){_STOP}",
    ),
    _form("huggingface_token", "a Hugging Face token", "hf_", r"(?<!\w)hf_(?P<body>[A-Za-z]{34})(?!\w)"),
    _form("npm_token", "an npm token", "npm_", r"(?<!\w)npm_(?P<body>[A-Za-z0-9]{36})(?!\w)"),
    _form("pypi_token", "a PyPI token", "pypi-AgE", rf"{_EDGE}pypi-AgE(?P<body>[\w-]{{50,1000}}+){_STOP}"),
    _form("sendgrid_key", "a SendGrid key", "SG.", rf"{_EDGE}SG\.[\w-]{{22}}\.(?P<body>[\w-]{{43}}){_STOP}"),
    _form("twilio_key", "a Twilio key", "SK", r"(?<!\w)SK(?P<body>[0-9a-f]{32})(?!\w)"),
    _form("mailchimp_key", "a Mailchimp key", "-us", r"(?<!\w)(?P<body>[0-9a-f]{32})-us\d{1,2}(?!\w)"),
    _form("digitalocean_token", "a DigitalOcean token", "dop_v1_", r"(?<!\w)dop_v1_(?P<body>[0-9a-f]{64})(?!\w)"),
    _form("shopify_token", "a Shopify token", "shpat_ shpss_", r"(?<!\w)shp(?:at|ss)_(?P<body>[0-9a-f]{32})(?!\w)"),
    _form("telegram_token", "a Telegram bot token", ":AA", r"(?<![\w:])\d{8,10}:AA(?P<body>[\w-]{33})(?![\w-])"),
    _form("azure_storage_key", "an Azure storage key", "AccountKey=", r"AccountKey=(?P<body>[A-Za-z0-9+/]{86})==(?!=)"),
    _form(
        "jwt",
        "a JSON web token",
        "eyJ",
        r"(?<![\w.-])(?P<whole>eyJ[\w-]{10,}+\.eyJ[\w-]{10,}+\.(?P<body>[\w-]{20,}+))",
        _is_token,
    ),
    _form(
        "password_in_url",
        "a password in an address",
        "://",
        r"://[^\s:/@?#\"'<>{}\[\]$]{1,64}:(?P<body>[^\s:/@\"'<>{}\[\]$*]{4,100})@(?!(?:localhost|127\.|host\b|hostname|[\w.-]{0,60}"
        r"\bexample\b))[\w-]{1,63}[.:/\w]",
    ),
)
_PLACEHOLDER = re.compile(
    r"example|sample|dummy|placeholder|your|change_?me|insert|redacted|xxxx|\.\.\.|abcdef|123456789|987654321|fake|"
    r"todo|replace|1234567890",
    re.IGNORECASE,
)
_WEAK = frozenset(
    """password passwd pass secret pwd user test hunter2 letmein root admin token changeme
    foobar""".split()  # noqa: SIM905 - a paragraph reads better than forty quoted words
)
"""What stands for a password in addresses that explain."""
_JWT_SAMPLE = "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
"""Signature of the token that every introduction shows."""


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """The rows that hold a credential, one finding each: the first of its first such turn. Whole turns are read.

    The code is the kind (`aws_access_key`, `private_key`, `jwt`, ...); the reason shows four characters of it at most.
    """
    return first_findings(rows, on_progress, _findings)


CHECK = RowCheck(SECRETS, find)


def _findings(row: Conversation) -> Iterator[Finding]:
    for number, message in enumerate(row.messages, 1):
        text = message.content
        for form in _FORMS:
            if any(hint in text for hint in form.hints):
                for match in form.pattern.finditer(text):
                    if _is_secret(form, match):
                        body = match["body"] or match[0]
                        hidden = masked(body if form.code in ("password_in_url", "private_key") else match[0])
                        reason = f"Turn {number} holds {form.name} ({hidden})."
                        yield Finding(check=SECRETS.name, line=row.line, code=form.code, reason=reason)


def _is_secret(form: _Form, match: re.Match[str]) -> bool:
    body = match["body"] or match[0]
    if _PLACEHOLDER.search(body) or body.lower() in _WEAK or body == _JWT_SAMPLE:
        return False
    few = 3 if form.code == "password_in_url" else 8
    return len(set(body)) >= few and form.holds(match[0])
