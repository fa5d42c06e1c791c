"""Personal data in rows is flagged and masked; other numbers are not flagged."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import Conversation
from core.schemas.data import Message
from core.schemas.screening import Finding
from core.screening import personal_data


def row(*texts: str, line: int = 1) -> Conversation:
    messages = tuple(Message(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts))
    return Conversation(messages, line)


def find(*rows: Conversation) -> Sequence[Finding]:
    return personal_data.find(rows, lambda _done, _total: None).findings


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("email", "Write to maria.huber@posteo.de today."),
        ("email", "<k.oneil+shop@gmail.com>"),
        ("card_number", "It is 4539 1488 0343 6467."),
        ("card_number", "My card number: 4539148803436467"),
        ("card_number", "Amex 3782-849375-12048 is it"),
        ("iban", "Pay to DE75 5121 0800 1245 1261 99, please."),
        ("iban", "IBAN: GB33BUKB20201555555555"),
        ("us_ssn", "Her SSN is 536-22-8741."),
        ("gb_nhs", "NHS number 943 476 5919"),
        ("es_dni", "DNI: 54362315K"),
        ("nl_bsn", "BSN 111222333"),
        ("pl_pesel", "PESEL 44051401359"),
        ("br_cpf", "CPF 390.533.447-05"),
        ("it_codice_fiscale", "codice fiscale RSSMRA85T10A562S"),
        ("phone", "Call +49 30 901820 now"),
        ("phone", "Ring +44 20 7946 0018."),
        ("phone", "My phone: (212) 736-3100"),
    ],
)
def test_personal_data_is_flagged_and_masked(code: str, text: str) -> None:
    (finding,) = find(row("Hello", text, line=3))
    assert (finding.check, finding.line, finding.code) == ("personal_data", 3, code)
    assert finding.reason.startswith("Turn 2 contains ")
    shown = finding.reason.rpartition("(")[2].removesuffix(").")
    assert len(shown) <= 5
    assert shown.endswith("\u2026")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "john@example.com and jane.smith@example.org",
        "Write to info@siemens.com or support@bank.de.",
        "git clone git@github.com:a/b.git",
        "Follow @maria on Saturday.",
        "icon@2x.png",
        "Test with 4111 1111 1111 1111 or 4242424242424242.",
        "Its card number: 4539 1488 0343 6468",  # a wrong check digit
        "The factory made 4539148803436467 bolts.",
        "1234 5678 9012 3456",
        "DE89 3704 0044 0532 0130 00 is the usual example.",
        "DE75 5121 0800 1245 1261 98",
        "536-22-8741 is a part number.",
        "SSN 078-05-1120 is an old joke.",
        "PESEL 44051401358",
        "The sum of 44051401359 and 54362315 is large.",
        "Phone: 555-0123 or (212) 555-0199 or 1-800-275-2273",
        "The range is 2019-2020, n = 1,234,567, p = 0.00000123456.",
        "x = +1234567890 / 2",
        "48/2 = <<48/2=24>>24 clips in May, $<<12/60=0.2>>0.2 per minute",
        "PMID 21645374 with CI 12.5-13.7 and 617-500-2000 rats",
        "ISBN 978-3-16-148410-0",
        "Version 192.168.10.1",
    ],
)
def test_other_numbers_are_not_flagged(text: str) -> None:
    assert find(row(text, text)) == []


def test_each_row_has_one_finding() -> None:
    both = "maria.huber@posteo.de, card 4539 1488 0343 6467"
    assert [(finding.line, finding.code) for finding in find(row(both, both, line=2), row("a", line=3))] == [
        (2, "email")
    ]


@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", "1-", "+1", "a.", "a@", "a@b.", "AB12 ", "A1", "ssn 1", "(212) ", "1.1,"]
)
def test_crafted_texts_take_bounded_time(unit: str) -> None:
    find(row(unit * (500_000 // len(unit)), "@"))


@settings(max_examples=150)
@given(st.text(alphabet=st.sampled_from("0123456789 +-().@aZ\u0661\u00b2\n"), max_size=80), st.text(max_size=20))
def test_nothing_raises(numbers: str, text: str) -> None:
    find(row(f"phone ssn dni nie nir bsn pesel cpf aadhaar card {numbers}{text}", f"{text}@{numbers}.de"))
