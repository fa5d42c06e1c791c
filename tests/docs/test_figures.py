"""The tables of figures are those of the stored results."""

from pathlib import Path

from research.real.tables import fill

ROOT = Path(__file__).parents[2]


def test_the_tables_are_written_from_the_stored_results() -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    assert "| `uniform` |" in page
    assert fill(page, ROOT) == page
