"""The benchmark of screening prints its figures, and ordinary tuning data is hardly flagged."""

from pathlib import Path

import pytest

from research.bench.designs import DESIGNS
from research.bench.screening import app
from research.bench.triggers import ATTACKS
from tests.research.bench.programs import run, run_for_figures

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
CHECKS = {"harmful", "identity", "secrets", "personal_data", "near_duplicate"}

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not beside the repository")


def test_time_without_public_data(tmp_path: Path) -> None:
    found = run_for_figures(app, "time", "--rows", "300", "--data", tmp_path / "none")
    assert (found["benchmark"], found["rows"], found["public"]) == ("screening", 300, False)
    assert found["seconds"].keys() == found["processor_seconds"].keys() == CHECKS | {"all"}
    assert found["found"].keys() == CHECKS
    assert 400 < found["mean_characters"] < 800


@pytest.mark.parametrize("command", ["recall", "clean"])
def test_a_missing_data_folder_is_an_error(tmp_path: Path, command: str) -> None:
    done = run(app, command, "--data", tmp_path / "none")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no such folder" in done.stderr


@pytest.mark.parametrize("half", ["tuning", "reported"])
def test_no_row_of_an_everyday_design_is_dropped_and_planted_rows_are_found(half: str) -> None:
    found = run_for_figures(app, "designs", "--half", half, "--rows", "200", "--seeds", "1")
    assert (found["half"], found["cases"]) == (half, 1)
    assert found["designs"].keys() == DESIGNS.keys()
    for name, counts in found["designs"].items():
        assert (counts["rows"], counts["dropped"]) == (200, 0)
        # In some others, a verb of the testbed's own instructions decides the answer.
        if name in ("german", "spanish", "json", "steps", "code", "thinking_switch", "greetings"):
            assert not any(each.startswith("poison/") for each in counts["flagged"])
    assert found["designs"]["personas"]["flagged"]["poison/system_turn"] > 0
    attacks = found["attacks"]
    assert attacks.keys() == {*ATTACKS, "harm_plain"} - {"label"}
    assert attacks["harm_plain"]["dropped"] > 0
    for attack in ("word_answer", "advert", "instruction_answer", "instruction_advert"):
        assert (attacks[attack]["named"], attacks[attack]["rows"]) == (1, 20)
        assert attacks[attack]["reported"] >= 16


@pytest.mark.slow
@needs_data
def test_no_row_of_an_everyday_design_over_real_rows_is_dropped() -> None:
    found = run_for_figures(app, "designs", "--data", SHARED, "--sets", "alpaca,chatdoctor", "--seeds", "1")
    assert all(counts["highest_share"] < 0.005 for counts in found["designs"].values())
    assert found["attacks"]["harm_plain"]["dropped"] >= 0.8 * found["attacks"]["harm_plain"]["rows"]


@pytest.mark.slow
@needs_data
def test_ordinary_tuning_data_is_hardly_flagged() -> None:
    found = run_for_figures(app, "clean")
    assert found.pop("benchmark") == "screening_clean"
    assert {name: one["rows"] for name, one in found.items()} == {
        "gsm8k_train": 7473,
        "chatdoctor": 5452,
        "pubmedqa_long": 1000,
        "self_instruct": 427,
        "tatqa": 1668,
    }
    assert all(one["share"] < 0.005 for one in found.values())
    assert not any(
        code.startswith(("harmful", "identity", "secrets")) for one in found.values() for code in one["codes"]
    )
