"""The check `personal_data`: patterns of data about people.

Covers: payment card numbers, bank accounts (IBAN), identity, tax, patient and insurance numbers of some countries,
e-mail addresses, telephone numbers. Numbers are validated by their check digits (python-stdnum) and numbering plans
(phonenumbers). If that cannot distinguish one from any other number, a word before the number must name it. Documented
examples and addresses of example domains or of roles (info@, support@) are not flagged. Every pattern is bounded or
possessive, so the time is linear in the text. Not here: names, postal addresses, dates of birth, IP addresses, health.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import phonenumbers
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.us import ssn

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import PERSONAL_DATA, Finding
from core.screening.check import Found, RowCheck
from core.screening.text import find_first_per_row, mask

_CONTEXT = 60
"""Characters before a number in which a word must name it."""


@dataclass(frozen=True)
class _Kind:
    """One kind of personal data."""

    code: str
    name: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]
    """Whether a match is personal data of this kind."""
    named: re.Pattern[str] | None = None
    """A word that must occur before a match."""
    hints: tuple[str, ...] = ()
    """Lower-case texts; turns that contain none of them are skipped."""
    long: bool = False
    """Whether a match has at least eight digits with only separators between them."""


def _number(code: str, name: str, names: str, pattern: str, is_valid: Callable[[str], bool]) -> _Kind:
    """A number that one of the lower-case `names` must name; `_` stands for a space."""
    hints = tuple(names.replace("_", " ") for names in names.split())
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, hints))})", re.IGNORECASE)
    return _Kind(code, name, re.compile(rf"(?<![\w.,-]){pattern}(?![\w-]|[.,]\d)"), is_valid, named, hints)


_EMAIL = re.compile(
    r"(?<![\w.+%@-])(?P<local>[A-Za-z0-9][\w.+%-]{0,63}+)@(?P<domain>(?:[A-Za-z0-9-]{1,63}+\.){1,4}[A-Za-z]{2,24})(?![\w@-])"
)
_ROLES = frozenset(
    """
    info alerts alert notifications notification updates news newsletter support sales contact admin help
    office webmaster noreply no-reply postmaster hello press jobs service services customerservice
    customercare enquiries inquiries feedback team careers hr billing mail privacy security user username
    name yourname you your.name your_name email test someone example foo john.doe johndoe jane.doe janedoe
    jsmith john.smith johnsmith abc me recipient sender customer marketing media editor git reception abuse
    """.split()  # noqa: SIM905 - a paragraph reads better than forty quoted words
)
_NO_DOMAIN = re.compile(
    r"(?:^|\.)(?:example|sample|test|invalid|localhost|domain|yourdomain|your-domain|mydomain|email|company|yourcompany|"
    r"mail|xyz|abc|abccompany|somewhere|website|yourwebsite|foo|bar)\.[a-z]{2,}$|\.(?:example|test|invalid|local|localhost|png|jpg|"
    r"py|js|css|html)$|^github\.com$|noreply",
    re.IGNORECASE,
)
_DOCUMENTED = frozenset(
    """
    4111111111111111 4242424242424242 4012888888881881 4000056655665556 4222222222222 5555555555554444
    5105105105105100 5200828282828210 2223003122003222 378282246310005 371449635398431 378734493671000
    6011111111111117 6011000990139424 30569309025904 38520000023237 3530111333300000 3566002020360505
    4000000000000002 4929000000006 1234567812345670 GB82WEST12345698765432 GB29NWBK60161331926819
    DE89370400440532013000 FR1420041010050500013M02606 NL91ABNA0417164300 ES9121000418450200051332
    BE68539007547034 CH9300762011623852957 AT611904300234573201 IT60X0542811101000000123456 078051120
    219099999 123456789 457555462 111111111 111111111111
    """.split()  # noqa: SIM905 - as above
)
"""Example numbers of payment services, standards and authorities."""
_CARD = re.compile(r"(?<![\w.,/$\u20ac\u00a3-])\d(?:[ -]?\d){12,18}+(?![\w-]|[.,]\d)")
_CARD_LENGTHS = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"6(?:011|5|4[4-9])"), (16, 19)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16,)),
    (re.compile(r"3(?:0[0-5]|[689])"), (14,)),
)
"""First digits of each issuer's numbers, and their possible lengths."""
_GROUPED = re.compile(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{5}")
_CARD_NAMED = re.compile(
    r"\b(?:cards?|visa|mastercard|amex|american express|credit|debit|cvv|expir\w{2,8})\b", re.IGNORECASE
)
_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_SEPARATORS = str.maketrans("", "", " -.()/")
_INTERNATIONAL = re.compile(r"(?<![\w+.])\+[1-9](?:[ .()/-]{0,2}\d){7,14}(?![\w-]|[.,]\d)")
_AMERICAN = re.compile(r"(?<![\w.,/+$-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}([-. ]))\d{3}[-. ]\d{4}(?![\w-]|[.,]\d)")
_PHONE_NAMED = re.compile(
    r"\b(?:(?:tele)?phone|tel|call|mobile|cell|fax|whatsapp|contact|dial|text me|ph)\b", re.IGNORECASE
)
_TOLL_FREE = frozenset(("800", "833", "844", "855", "866", "877", "888", "900"))
"""American area codes of toll-free and premium numbers."""


def _valid(module: object) -> Callable[[str], bool]:
    check = getattr(module, "is_valid")  # noqa: B009 - stdnum's modules share no type
    return lambda text: bool(check(text)) and text.translate(_SEPARATORS) not in _DOCUMENTED


def _is_email(text: str) -> bool:
    local, _, domain = text.lower().rpartition("@")
    return local not in _ROLES and not _NO_DOMAIN.search(domain)


def _is_card(text: str) -> bool:
    digits = text.translate(_SEPARATORS)
    if digits in _DOCUMENTED or len(set(digits)) < 4 or not luhn.is_valid(digits):
        return False
    return any(first.match(digits) and len(digits) in lengths for first, lengths in _CARD_LENGTHS)


def _is_phone(text: str) -> bool:
    try:
        number = phonenumbers.parse(text, None if text.startswith("+") else "US")
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number) and not _is_made_up(number)


def _is_made_up(number: phonenumbers.PhoneNumber) -> bool:
    """Whether a number is fictional (American 555 numbers, repeated or consecutive digits) or toll-free."""
    digits = str(number.national_number)
    simple = len(set(digits)) < 4 or digits[-7:] in ("1234567", "7654321")
    return simple or (number.country_code == 1 and (digits[3:6] == "555" or digits[:3] in _TOLL_FREE))


_KINDS = (
    _Kind("email", "an e-mail address", _EMAIL, _is_email, hints=("@",)),
    _Kind("card_number", "a payment card number", _CARD, _is_card, long=True),
    _Kind("iban", "a bank account number (IBAN)", _IBAN, _valid(iban)),
    _number("us_ssn", "a US social security number", "ssn social_security", r"\d{3}-\d{2}-\d{4}", _valid(ssn)),
    _number("ca_sin", "a Canadian insurance number", "social_insurance", r"\d{3}[ -]?\d{3}[ -]?\d{3}", _valid(sin)),
    _number("gb_nhs", "an NHS number", "nhs_number nhs_no", r"\d{3}[ -]?\d{3}[ -]?\d{4}", _valid(nhs)),
    _number("es_dni", "a Spanish identity number", "dni nif", r"\d{8}-?[A-Z]", _valid(dni)),
    _number("es_nie", "a Spanish foreigner's number", "nie", r"[XYZ]-?\d{7}-?[A-Z]", _valid(nie)),
    _number(
        "fr_nir",
        "a French social security number",
        "nir s\u00e9curit\u00e9_sociale securite_sociale carte_vitale",
        r"[12] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d",
        _valid(nir),
    ),
    _number(
        "de_idnr",
        "a German tax number",
        "steuer-id steuerid steueridentifikationsnummer identifikationsnummer idnr",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        _valid(idnr),
    ),
    _number("nl_bsn", "a Dutch citizen number", "bsn burgerservicenummer", r"\d{9}", _valid(bsn)),
    _number("pl_pesel", "a Polish identity number", "pesel", r"\d{11}", _valid(pesel)),
    _number("br_cpf", "a Brazilian taxpayer number", "cpf", r"\d{3}\.?\d{3}\.?\d{3}-?\d{2}", _valid(cpf)),
    _number("in_aadhaar", "an Indian Aadhaar number", "aadhaar aadhar", r"\d{4} ?\d{4} ?\d{4}", _valid(aadhaar)),
    _number(
        "it_codice_fiscale",
        "an Italian tax code",
        "codice_fiscale",
        r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]",
        _valid(codicefiscale),
    ),
    _Kind("phone", "a telephone number", _INTERNATIONAL, _is_phone, hints=("+",), long=True),
    _Kind("phone", "a telephone number", _AMERICAN, _is_phone, named=_PHONE_NAMED, long=True),
)
_LONG = re.compile(r"\d(?:[ .()/-]{0,2}\d){7}")
_DIGITS = re.compile(r"\d{2}")


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """Flag rows that contain personal data; at most one finding per row, for the first one. Whole turns are searched.

    The code is the kind (`email`, `card_number`, `iban`, `phone`, `us_ssn`, ...). The reason quotes at most four
    characters.
    """
    return find_first_per_row(rows, on_progress, _find_in_row)


CHECK = RowCheck(PERSONAL_DATA, find)


def _find_in_row(row: Conversation) -> Iterator[Finding]:
    for number, message in enumerate(row.messages, 1):
        text = message.content
        if "@" not in text and not _DIGITS.search(text):
            continue
        lower, has_long = text.lower(), _LONG.search(text) is not None
        for kind in _KINDS:
            if (kind.long and not has_long) or (kind.hints and not any(hint in lower for hint in kind.hints)):
                continue
            if (found := next(_matches(kind, text), None)) is not None:
                reason = f"Turn {number} contains {kind.name} ({mask(found)})."
                yield Finding(check=PERSONAL_DATA.name, line=row.line, code=kind.code, reason=reason)


def _matches(kind: _Kind, text: str) -> Iterator[str]:
    for match in kind.pattern.finditer(text):
        before = text[max(0, match.start() - _CONTEXT) : match.start()]
        if kind.named is not None and not kind.named.search(before):
            continue
        if kind.pattern is _CARD and not _GROUPED.fullmatch(match[0]) and not _CARD_NAMED.search(before):
            continue
        if kind.is_valid(match[0]):
            yield match[0]
