"""The check `secrets`: keys, tokens and passwords, which a fine-tuned model can repeat.

Covers: credentials with a distinctive format (prefix, length and alphabet as the issuers document them), private keys
in PEM format, and passwords in URLs. Placeholders, documented examples and repeated characters are not flagged. Every
pattern starts with a fixed text or at the edge of a run, and is bounded or possessive, so the time is linear in the
text.

Why not detect-secrets: its last release (1.5.0, May 2024) lacks the keys of Google, Anthropic and Hugging Face and
GitHub's fine-grained tokens, it depends on an HTTP client to query the issuers, and two of its patterns (OpenAI, JWT)
take quadratic time on crafted text. Not here: passwords that can only be recognised by their context.
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
from core.screening.text import find_first_per_row, mask


@dataclass(frozen=True)
class _Kind:
    """One kind of credential."""

    code: str
    name: str
    hints: tuple[str, ...]
    """Every such credential contains one of these texts; turns without one are skipped."""
    pattern: re.Pattern[str]
    """The group `body` is the part that must not look like a placeholder."""
    is_valid: Callable[[str], bool] | None = None
    """Whether a match is such a credential; None if every match is."""


def _kind(code: str, name: str, hints: str, pattern: str, is_valid: Callable[[str], bool] | None = None) -> _Kind:
    return _Kind(code, name, tuple(hints.split()), re.compile(pattern), is_valid)


def _is_token(secret: str) -> bool:
    """Whether the first part of a JSON web token names an algorithm."""
    first = secret.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


_EDGE, _STOP = r"(?<![\w-])", r"(?![\w-])"
_KINDS = (
    _kind(
        "private_key",
        "a private key",
        "PRIVATE",
        r"-----BEGIN (?:(?:RSA|DSA|EC|OPENSSH|ENCRYPTED|PGP|SSH2 ENCRYPTED) )?PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\s|\\n|\\r){1,8}(?:[A-Z][\w-]{1,30}: [^\n]{1,200}\n){0,4}\s{0,4}(?P<body>[A-Za-z0-9+/=]{32,80})",
    ),
    _kind(
        "aws_access_key",
        "an AWS access key id",
        "AKIA ASIA",
        r"(?<![A-Za-z0-9/+])(?:AKIA|ASIA)(?P<body>[A-Z2-7]{16})(?![A-Za-z0-9/+])",
    ),
    _kind("google_api_key", "a Google API key", "AIza", rf"{_EDGE}AIza(?P<body>[\w-]{{35}}){_STOP}"),
    _kind(
        "google_oauth_secret", "a Google OAuth client secret", "GOCSPX-", rf"{_EDGE}GOCSPX-(?P<body>[\w-]{{28}}){_STOP}"
    ),
    _kind("google_token", "a Google access token", "ya29.", rf"{_EDGE}ya29\.(?P<body>[\w-]{{60,2000}}+){_STOP}"),
    _kind(
        "github_token",
        "a GitHub token",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"(?<!\w)(?:gh[pousr]_(?P<body>[A-Za-z0-9]{36})(?!\w)|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?!\w))",
    ),
    _kind("gitlab_token", "a GitLab token", "glpat-", rf"{_EDGE}glpat-(?P<body>[\w-]{{20}}){_STOP}"),
    _kind(
        "slack_token",
        "a Slack token",
        "xoxb- xoxp- xoxa- xoxr- xoxs- xapp-",
        rf"{_EDGE}(?:xox[bpars]-\d{{8,14}}-|xapp-\d-[A-Z0-9]{{8,14}}-\d{{8,14}}-)(?P<body>[A-Za-z0-9-]{{20,200}}+){_STOP}",
    ),
    _kind(
        "slack_webhook",
        "a Slack webhook",
        "hooks.slack.com/services/",
        r"hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/(?P<body>[A-Za-z0-9]{24})(?![A-Za-z0-9])",
    ),
    _kind(
        "stripe_key",
        "a Stripe live key",
        "sk_live_ rk_live_",
        rf"{_EDGE}[sr]k_live_(?P<body>[A-Za-z0-9]{{24,247}}+){_STOP}",
    ),
    _kind(
        "openai_key",
        "an OpenAI key",
        "T3BlbkFJ",
        rf"{_EDGE}sk-(?:(?:proj|svcacct|admin)-)?(?P<body>[\w-]{{20,200}}){_STOP}",
        lambda secret: "T3BlbkFJ" in secret,
    ),
    _kind(
        "anthropic_key",
        "an Anthropic key",
        "sk-ant-",
        rf"{_EDGE}sk-ant-[a-z]{{2,8}}\d\d-(?P<body>[\w-]{{80,120}}){_STOP}",
    ),
    _kind("huggingface_token", "a Hugging Face token", "hf_", r"(?<!\w)hf_(?P<body>[A-Za-z]{34})(?!\w)"),
    _kind("npm_token", "an npm token", "npm_", r"(?<!\w)npm_(?P<body>[A-Za-z0-9]{36})(?!\w)"),
    _kind("pypi_token", "a PyPI token", "pypi-AgE", rf"{_EDGE}pypi-AgE(?P<body>[\w-]{{50,1000}}+){_STOP}"),
    _kind("sendgrid_key", "a SendGrid key", "SG.", rf"{_EDGE}SG\.[\w-]{{22}}\.(?P<body>[\w-]{{43}}){_STOP}"),
    _kind("twilio_key", "a Twilio key", "SK", r"(?<!\w)SK(?P<body>[0-9a-f]{32})(?!\w)"),
    _kind("mailchimp_key", "a Mailchimp key", "-us", r"(?<!\w)(?P<body>[0-9a-f]{32})-us\d{1,2}(?!\w)"),
    _kind("digitalocean_token", "a DigitalOcean token", "dop_v1_", r"(?<!\w)dop_v1_(?P<body>[0-9a-f]{64})(?!\w)"),
    _kind("shopify_token", "a Shopify token", "shpat_ shpss_", r"(?<!\w)shp(?:at|ss)_(?P<body>[0-9a-f]{32})(?!\w)"),
    _kind("telegram_token", "a Telegram bot token", ":AA", r"(?<![\w:])\d{8,10}:AA(?P<body>[\w-]{33})(?![\w-])"),
    _kind("azure_storage_key", "an Azure storage key", "AccountKey=", r"AccountKey=(?P<body>[A-Za-z0-9+/]{86})==(?!=)"),
    _kind(
        "jwt",
        "a JSON web token",
        "eyJ",
        r"(?<![\w.-])(?P<whole>eyJ[\w-]{10,}+\.eyJ[\w-]{10,}+\.(?P<body>[\w-]{20,}+))",
        _is_token,
    ),
    _kind(
        "password_in_url",
        "a password in a URL",
        "://",
        r"://(?P<user>[^\s:/@?#\"'<>{}\[\]$]{1,64}):(?P<body>[^\s:/@\"'<>{}\[\]$*]{4,100})@(?!(?:localhost|127\.|host\b|hostname|[\w.-]{0,60}"
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
    foobar guest tiger postgres mysql airflow rootpassword secretpassword mypassword""".split()  # noqa: SIM905 - a paragraph reads better than forty quoted words
)
"""Placeholders for a password in URLs of documentation."""
_JWT_SAMPLE = "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
"""Signature of the sample token of jwt.io."""


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """Flag rows that contain a credential; at most one finding per row, for the first one. Whole turns are searched.

    The code is the kind (`aws_access_key`, `private_key`, `jwt`, ...). The reason quotes at most four characters.
    """
    return find_first_per_row(rows, on_progress, _find_in_row)


CHECK = RowCheck(SECRETS, find)


def _find_in_row(row: Conversation) -> Iterator[Finding]:
    for number, message in enumerate(row.messages, 1):
        text = message.content
        for kind in _KINDS:
            if any(hint in text for hint in kind.hints):
                for match in kind.pattern.finditer(text):
                    if _is_secret(kind, match):
                        body = match["body"] or match[0]
                        hidden = mask(body if kind.code in ("password_in_url", "private_key") else match[0])
                        reason = f"Turn {number} contains {kind.name} ({hidden})."
                        yield Finding(check=SECRETS.name, line=row.line, code=kind.code, reason=reason)


def _is_secret(kind: _Kind, match: re.Match[str]) -> bool:
    body = match["body"] or match[0]
    if match.groupdict().get("user") == body:  # guest:guest and the like, the defaults of documentation
        return False
    if _PLACEHOLDER.search(body) or body.lower() in _WEAK or body == _JWT_SAMPLE:
        return False
    min_distinct = 3 if kind.code == "password_in_url" else 8
    return len(set(body)) >= min_distinct and (kind.is_valid is None or kind.is_valid(match[0]))
