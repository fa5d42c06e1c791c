"""core.signing.report and envelope: exactly what was signed is verified."""

import base64
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from core.errors import TooLarge
from core.schemas.gate import GateDecision, GateReason
from core.schemas.job import DatasetRef
from core.schemas.results import ModelIdentity, Report
from core.schemas.signing import GateSummary, ReportSummary, SignedFile, TrustedKey, TrustedKeys
from core.signing import MAX_BYTES, Signer, SigningKeys, sign_report, verify
from core.signing import report as report_module
from core.signing.envelope import Envelope, Signature, pae, read, write
from core.signing.keys import key_id
from core.signing.report import PAYLOAD_TYPE, PREDICATE_TYPE

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
REPORT: dict[str, object] = {
    "version": 1,
    "job_id": "job_1",
    "model": {"name": "testbed", "sha256": "a" * 64},
    "dataset": {"id": "ds_1", "sha256": "b" * 64},
    "gate": [{"run": "ml_lr", "outcome": "quarantined", "reasons": [{"code": "rise", "message": "It rose."}]}],
    "share": 0.1,
    "name": "Zoë",
}
REPORT_JSON = json.dumps(REPORT).encode()
ADAPTER = sha256(b"adapter").hexdigest()
FILES = {"report.json": sha256(REPORT_JSON).hexdigest(), "adapter/adapter_model.safetensors": ADAPTER}


def signer(at: datetime = AT, seed: int = 1) -> Signer:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return Signer(key_id(key.public_key()), at, key)


def trusted(*signers: Signer, retired_at: datetime | None = None) -> TrustedKeys:
    return TrustedKeys(
        keys=tuple(
            TrustedKey(
                keyid=each.keyid,
                public_key=each.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
                created_at=AT - timedelta(days=1),
                retired_at=retired_at,
            )
            for each in signers
        )
    )


ME = signer()
KEYS = trusted(ME)
ENVELOPE = sign_report(REPORT_JSON, FILES, ME)


def statement(**change: object) -> dict[str, object]:
    return json.loads(read(ENVELOPE).payload) | change


def signed_bytes(payload: bytes, kind: str = PAYLOAD_TYPE, by: Signer = ME) -> bytes:
    """Any payload, signed by a trusted key."""
    return write(Envelope(kind, payload, (Signature(by.keyid, by.key.sign(pae(kind, payload))),)))


def test_signed_report_is_verified() -> None:
    found = verify(ENVELOPE, KEYS)
    assert found.verified
    assert (found.keyid, found.signed_at, found.report) == (ME.keyid, AT, REPORT)
    assert found.files == tuple(SignedFile(name=name, sha256=digest) for name, digest in sorted(FILES.items()))
    assert found.summary == ReportSummary(
        version=1,
        job_id="job_1",
        model="testbed",
        model_sha256="a" * 64,
        dataset="ds_1",
        dataset_sha256="b" * 64,
        gate=(GateSummary(run="ml_lr", outcome="quarantined", reasons=("It rose.",)),),
    )
    assert "report" not in found.model_dump()


def test_payload_is_an_in_toto_statement() -> None:
    whole = json.loads(ENVELOPE)
    assert whole["payloadType"] == "application/vnd.in-toto+json"
    assert json.loads(base64.b64decode(whole["payload"])) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(FILES.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"report": REPORT, "signed_at": "2026-01-02T03:04:05.678901Z"},
    }


def test_signing_is_deterministic() -> None:
    other = json.dumps(dict(reversed(REPORT.items())), indent=2).encode()
    assert sign_report(other, {"b": ADAPTER, "a": ADAPTER}, ME) == sign_report(
        REPORT_JSON, {"a": ADAPTER, "b": ADAPTER}, ME
    )


def test_pre_authentication_encoding_matches_the_protocol() -> None:
    """The test vector of DSSE's protocol.md."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_reference_implementation_agrees() -> None:
    """In both directions: securesystemslib verifies our envelope, and we verify its envelope."""
    dsse = pytest.importorskip("securesystemslib.dsse")
    from securesystemslib.signer import CryptoSigner, SSlibKey  # noqa: PLC0415

    key = SSlibKey.from_crypto(ME.key.public_key(), keyid=ME.keyid)
    theirs = dsse.Envelope.from_dict(json.loads(ENVELOPE))
    assert list(theirs.verify([key], 1)) == [ME.keyid]
    theirs.signatures.clear()
    theirs.sign(CryptoSigner(ME.key, key))
    assert verify(json.dumps(theirs.to_dict()).encode(), KEYS).report == REPORT


def test_every_changed_byte_is_detected() -> None:
    """At every position of a small envelope: other bits, other case, blanks, and the syntax of JSON and base64."""
    small = sign_report(b'{"job_id":"j"}', {"a": ADAPTER}, ME)
    true = verify(small, KEYS)
    codes = set()
    unseen = set()
    for place, byte in enumerate(small):
        for changed in {byte ^ 1, byte ^ 0x20, byte ^ 0x80, *b' \n"\\{}:,=A-_+/'} - {byte}:
            found = verify(small[:place] + bytes([changed]) + small[place + 1 :], KEYS)
            codes.add(found.code)
            if found.verified:
                assert found == true
                unseen.add(place)
    assert codes == {"verified", "altered", "malformed", "unknown_key"}
    # Exceptions: the name of the optional field `keyid`, and the second base64 alphabet that DSSE allows.
    hint = small.index(b'"keyid"')
    base64_others = {place for place, byte in enumerate(small) if byte in b"+/"}
    assert unseen <= {*range(hint + 1, hint + 6), *base64_others}


@given(st.data())
def test_every_cut_and_insertion_is_detected(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(ENVELOPE)))
    last = data.draw(st.integers(first, len(ENVELOPE)))
    changed = ENVELOPE[:first] + data.draw(st.binary(max_size=8)) + ENVELOPE[last:]
    found = verify(changed, KEYS)
    if found.verified:
        assert (found.report, found.files, found.signed_at) == (REPORT, verify(ENVELOPE, KEYS).files, AT)
    else:
        assert found.report is None
        assert found.files == ()


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed(data: bytes) -> None:
    assert verify(data, KEYS).code == "malformed"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text() | st.sampled_from(list(REPORT)), _JSON, max_size=5))
def test_any_report_is_returned_unchanged(report: dict[str, object]) -> None:
    found = verify(sign_report(json.dumps(report).encode(), {"a": ADAPTER}, ME), KEYS)
    assert found.verified
    assert found.report == report


def test_signature_by_another_key_is_rejected() -> None:
    other = signer(seed=2)
    envelope = sign_report(REPORT_JSON, FILES, other)
    found = verify(envelope, KEYS)
    assert (found.code, found.keyid, found.report) == ("unknown_key", other.keyid, None)
    claimed = json.loads(envelope)
    claimed["signatures"][0]["keyid"] = ME.keyid
    assert verify(json.dumps(claimed).encode(), KEYS).code == "altered"
    assert verify(ENVELOPE, TrustedKeys()).code == "unknown_key"


def test_signature_without_a_key_id_is_tried_with_every_key() -> None:
    whole = json.loads(ENVELOPE)
    del whole["signatures"][0]["keyid"]
    found = verify(json.dumps(whole).encode(), trusted(signer(seed=2), ME))
    assert (found.code, found.keyid) == ("verified", ME.keyid)
    assert verify(json.dumps(whole).encode(), trusted(signer(seed=2))).code == "unknown_key"


def test_one_signature_by_a_trusted_key_is_sufficient() -> None:
    whole = json.loads(ENVELOPE)
    wrong = {"keyid": signer(seed=2).keyid, "sig": whole["signatures"][0]["sig"]}
    whole["signatures"].insert(0, wrong)
    found = verify(json.dumps(whole).encode(), trusted(signer(seed=2), ME))
    assert (found.code, found.keyid) == ("verified", ME.keyid)


@pytest.mark.parametrize(
    ("late", "code"),
    [(timedelta(microseconds=-1), "verified"), (timedelta(0), "verified"), (timedelta(microseconds=1), "retired_key")],
)
def test_key_signs_until_it_is_retired(late: timedelta, code: str) -> None:
    found = verify(sign_report(REPORT_JSON, FILES, signer(AT + late)), trusted(ME, retired_at=AT))
    assert (found.code, found.signed_at, found.keyid) == (code, AT + late, ME.keyid)


def test_rotation_keeps_old_signatures_valid_and_rejects_new_ones_by_the_old_key(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path)
    with keys.signer() as old:
        before = sign_report(REPORT_JSON, FILES, old)
    keys.rotate()
    with keys.signer() as new:
        after = sign_report(REPORT_JSON, FILES, new)
    stolen = sign_report(REPORT_JSON, FILES, Signer(old.keyid, new.at, old.key))
    list_ = keys.trusted()
    assert [verify(each, list_).code for each in (before, after, stolen)] == ["verified", "verified", "retired_key"]
    assert verify(after, list_).keyid == new.keyid != old.keyid


def test_report_of_a_newer_version_is_verified_and_partly_summarized() -> None:
    newer = {"version": 9, "job_id": "job_2", "gate": {"quite": "different"}, "model": "testbed", "dataset": None}
    found = verify(sign_report(json.dumps(newer).encode(), {"a": ADAPTER}, ME), KEYS)
    assert found.verified
    assert found.summary == ReportSummary(version=9, job_id="job_2")


def test_summary_of_version_1_names_the_run() -> None:
    gate: list[dict[str, object]] = [{"arm": "ml_lr", "outcome": "released", "reasons": []}]
    found = verify(sign_report(json.dumps({"version": 1, "gate": gate}).encode(), {"a": ADAPTER}, ME), KEYS)
    assert found.summary == ReportSummary(version=1, gate=(GateSummary(run="ml_lr", outcome="released"),))


def test_summary_uses_the_field_names_of_the_current_report() -> None:
    """Built without validation: only the fields that a summary needs."""
    reasons = (GateReason(code="attack_success_rise", message="It rose."),)
    decision = GateDecision(run="ml_lr", outcome="quarantined", reasons=reasons, checks=(), policy_version=0)
    model = ModelIdentity(name="testbed", source="here", sha256="a" * 64, parameters=1, architecture="Some")
    dataset = DatasetRef.model_construct(id="ds_1", sha256="b" * 64)
    report = Report.model_construct(version=1, job_id="job_1", model=model, dataset=dataset, gate=(decision,))
    found = verify(sign_report(report.model_dump_json().encode(), {"a": ADAPTER}, ME), KEYS)
    assert found.summary == verify(ENVELOPE, KEYS).summary


def test_unknown_fields_of_envelope_and_statement_are_ignored() -> None:
    later = statement(added=1)
    whole = json.loads(signed_bytes(json.dumps(later).encode())) | {"added": [1]}
    assert verify(json.dumps(whole).encode(), KEYS).report == REPORT


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v2"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicate": {"report": {}}},
        {"predicate": {"report": [], "signed_at": "2026-01-02T03:04:05Z"}},
        {"predicate": {"report": {}, "signed_at": "2026-01-02T03:04:05"}},
        {"predicate": {"report": {}, "signed_at": "yesterday"}},
        {"subject": {}},
        {"subject": [{"name": "a"}]},
        {"subject": [{"name": "a", "digest": {"sha512": "0"}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "A" * 64}}]},
        {"subject": 2 * [{"name": "a", "digest": {"sha256": "a" * 64}}]},
    ],
)
def test_signed_payload_that_is_not_a_report_is_rejected(change: dict[str, object]) -> None:
    found = verify(signed_bytes(json.dumps(statement(**change)).encode()), KEYS)
    assert (found.code, found.keyid, found.report) == ("not_a_report", ME.keyid, None)
    assert "\n" not in found.message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"[" * 100_000,
        json.dumps(statement(predicate={"report": {"a": "\ud800"}, "signed_at": "2026-01-02T03:04:05Z"})).encode(),
        json.dumps(statement()).replace("0.1", "1e999").encode(),
        json.dumps(statement()).replace("0.1", 800 * "[" + 800 * "]").encode(),
    ],
    ids=["empty", "list", "not UTF-8", "duplicate key", "NaN", "deep", "lone surrogate", "infinite", "deep report"],
)
def test_ambiguous_json_payload_is_not_a_report(payload: bytes) -> None:
    assert verify(signed_bytes(payload), KEYS).code == "not_a_report"


def test_payload_type_is_signed() -> None:
    assert verify(signed_bytes(read(ENVELOPE).payload, "text/plain"), KEYS).code == "not_a_report"
    whole = json.loads(ENVELOPE) | {"payloadType": "text/plain"}
    assert verify(json.dumps(whole).encode(), KEYS).code == "altered"


def _with(**change: object) -> bytes:
    return json.dumps(json.loads(ENVELOPE) | change).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"\xef\xbb\xbf" + ENVELOPE,
        ENVELOPE.decode().encode("utf-16"),
        ENVELOPE[:-1] + b',"payload":"e30="}',
        b"[" * 100_000,
        _with(payload=None),
        _with(payload="e30"),
        _with(payload="e31="),
        _with(payload="e30=\n"),
        _with(payload="\u00e9"),
        _with(payloadType=1),
        _with(payloadType="\ud800"),
        _with(signatures=None),
        _with(signatures=[]),
        _with(signatures=[1]),
        _with(signatures=[{"keyid": "a"}]),
        _with(signatures=[{"keyid": 1, "sig": "AAAA"}]),
        _with(signatures=[{"keyid": "\ud800", "sig": "AAAA"}]),
        _with(signatures=17 * json.loads(ENVELOPE)["signatures"]),
    ],
)
def test_data_that_is_not_an_envelope_is_malformed(data: bytes) -> None:
    found = verify(data, KEYS)
    assert (found.code, found.report) == ("malformed", None)


def test_large_envelope_is_neither_read_nor_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "64 MiB" in verify(b" " * (MAX_BYTES + 1), KEYS).message
    monkeypatch.setattr(report_module, "MAX_BYTES", 1000)
    with pytest.raises(TooLarge):
        sign_report(json.dumps({"a": "b" * 1000}).encode(), {"a": ADAPTER}, ME)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\nb", ".."])
def test_name_outside_the_folder_is_not_signed(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a file"):
        sign_report(REPORT_JSON, {name: ADAPTER}, ME)


@pytest.mark.parametrize(
    ("report", "files", "why"),
    [
        (b"[]", {"a": ADAPTER}, "not a JSON object"),
        (b'{"a": 1, "a": 2}', {"a": ADAPTER}, "duplicate key"),
        (b'{"a": Infinity}', {"a": ADAPTER}, "Infinity"),
        (b'{"a": 1e999}', {"a": ADAPTER}, "not JSON compliant"),
        (b"{}", {"a": "b"}, "sha256"),
        (b"{}", {}, "at least one file"),
        (b"{}", FILES, "not that of the report to sign"),
    ],
)
def test_invalid_input_is_not_signed(report: bytes, files: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        sign_report(report, files, ME)
