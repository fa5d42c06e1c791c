"""The demo runs on its own service, and its screen, result file, reports and adapter are checked."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from core.catalog import TESTBED
from core.errors import InvalidDataset
from core.lm.files import fetch
from core.schemas.results import Report
from core.schemas.security import SUITES
from core.signing import KEYS_FILE, read_keys, verify
from securetune.cli.demo import demo


@pytest.fixture
def arithmetic(tmp_path: Path) -> Path:
    """Rows with the columns of GSM8K, which are not a known layout; the demo detects them. One prompt is too long."""
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"What is {n} plus 2?", "answer": f"{n} + 2 = {n + 2}. #### {n + 2}"} for n in range(40)]
    rows[0]["question"] = "How long is this? " * 20
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.slow
def test_the_demo_writes_figures_a_report_and_an_adapter_that_changes_the_model(
    tmp_path: Path, arithmetic: Path
) -> None:
    screen = StringIO()
    console = Console(file=screen, width=100)
    result = demo(arithmetic, tmp_path / "demo", console, rows=24, steps=3, max_length=64, suite="quick")

    printed = screen.getvalue()
    assert "Using 24 of the 40 rows" in printed
    assert printed.count("64 tokens or more") == 1, "one warning for the row that is too long"
    last_screen = printed[printed.rindex("report done") :]
    assert len(last_screen.splitlines()) <= 24, "the last screen fits a terminal"
    found = json.loads(result.read_text())
    assert set(found) == {
        "job_id",
        "adapter_path",
        "report_path",
        "signed_report_path",
        "recommended",
        "runs",
        "warnings",
    }
    assert all(warning.count(". ") for warning in found["warnings"]), "also what to do"
    assert set(found["runs"]) == {"base", "recommended", "uniform", "ml_lr"}
    for run in found["runs"].values():
        assert list(run["asr"]) == [attack.family for attack in SUITES["quick"].attacks]
        assert all(0 <= rate <= 1 for rate in run["asr"].values())
        assert 1 <= run["harmfulness"] <= 5
        assert 0 <= run["over_refusal"] <= 1
        assert run["task"]["loss"] > 0
        assert set(run["gate"]) == {"outcome", "reasons"}
    assert found["runs"]["base"]["gate"]["outcome"] == "not_gated"
    report = Report.model_validate_json((tmp_path / "demo" / "report.json").read_bytes())
    decisions = {decision.run: decision for decision in report.gate}
    for name in ("recommended", "uniform", "ml_lr"):
        gate = found["runs"][name]["gate"]
        assert gate["outcome"] == decisions[name].outcome
        assert gate["reasons"] == [reason.message for reason in decisions[name].reasons]
        assert re.search(rf"{name} +{gate['outcome']} ", printed)
    assert verify(Path(found["signed_report_path"]).read_bytes(), read_keys(tmp_path / "demo" / KEYS_FILE)).verified
    assert found["runs"]["ml_lr"]["task"] != found["runs"]["base"]["task"]
    assert Path(found["report_path"]).read_text().startswith("<!doctype html>")
    assert report.job_id == found["job_id"]
    assert report.data.training_rows + report.data.validation_rows == 23
    if found["runs"]["recommended"]["gate"]["outcome"] == "released":
        _changes_the_logits(Path(found["adapter_path"]))
    else:
        assert found["adapter_path"] is None, "the demo does not override the gate"


def test_invalid_data_is_reported_before_anything_starts(tmp_path: Path) -> None:
    data = tmp_path / "wrong.jsonl"
    data.write_text('{"title": "no known column"}\n')
    with pytest.raises(InvalidDataset):
        demo(data, tmp_path / "demo", Console(file=StringIO()), rows=0, steps=1, max_length=64, suite="quick")
    assert not (tmp_path / "demo" / "state").exists()


def _changes_the_logits(adapter: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(fetch(TESTBED)).eval()
    ids = torch.arange(3, 20).unsqueeze(0)
    with torch.no_grad():
        before = base(input_ids=ids).logits
        after = PeftModel.from_pretrained(base, adapter).eval()(input_ids=ids).logits
    assert not torch.allclose(before, after)
