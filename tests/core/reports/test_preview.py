"""The page of a preview: everything in it is escaped, marked and counted."""

import re
from html.parser import HTMLParser

from typing_extensions import override

from core.reports.preview import html
from core.schemas.events import Warned
from core.schemas.preview import Preview, PreviewRow, PreviewToken, RejectedRow, TokenCounts

COUNTS = TokenCounts(
    rows=12_000,
    all_rows=True,
    training_rows=11_000,
    tokens=50_000,
    trained_tokens=20_000,
    longest=4321,
    cut_rows=2,
    cut_trained_tokens=77,
    dropped_rows=900,
    rejected_rows=100,
)
ROW = PreviewRow(
    line=3,
    part=2,
    parts=2,
    tokens=(
        PreviewToken(id=7, text="<|user|>", trained=False),
        PreviewToken(id=8, text="<script>alert(1)</script>\u202e", trained=False),
        PreviewToken(id=9, text="  two\n", trained=True),
        PreviewToken(id=10, text="<|end|>", trained=True),
    ),
    trained_tokens=2,
    cut_tokens=5,
    cut_trained_tokens=4,
)
PREVIEW = Preview(
    model="testbed",
    chat_template="own",
    end_of_turn="<|end|>",
    max_length=1024,
    counts=COUNTS,
    rows=(ROW,),
    rejected=(RejectedRow(line=17, message="turn 1 contains <b>"),),
    warnings=(Warned(code="rows_truncated", message="2 rows are cut."),),
)


class Reader(HTMLParser):
    """Tags of a page, and the text inside of `mark`."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.marked = ""
        self._inside = False

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._inside |= tag == "mark"

    @override
    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "mark"

    @override
    def handle_data(self, data: str) -> None:
        self.marked += data if self._inside else ""


def text(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2]).split())


def test_what_is_trained_is_marked_to_the_character() -> None:
    reader = Reader()
    reader.feed(html(PREVIEW, "rows.jsonl"))
    assert reader.marked == "  two\u21b5\n<|end|>"
    assert not {"script", "b>", "link", "img"} & reader.tags


def test_texts_are_escaped_and_what_is_invisible_is_shown() -> None:
    page = html(PREVIEW, "<i>rows</i>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[U+202E]" in page
    assert "&lt;i&gt;rows&lt;/i&gt;" in page
    assert "turn 1 contains &lt;b&gt;" in page
    assert 'class="end">&lt;|end|&gt;' in page


def test_counts_cuts_and_warnings_are_told() -> None:
    shown = text(html(PREVIEW, "rows"))
    for part in (
        "Rows 11,000 of 12,000 rows in the file",
        "Trained tokens 20,000 of 50,000, 40 %",
        "Longest row 4,321 tokens; rows are cut at 1,024",
        "Cut rows 2 77 tokens of answers are lost",
        "Dropped rows 900",
        "Rejected rows 100",
        "99 more rows are rejected.",
        "2 rows are cut. rows_truncated",
        "Line 3, part 2 of 2",
        "5 tokens beyond 1,024 are cut, 4 of them of answers.",
    ):
        assert part in shown


def test_a_page_without_rows_says_so() -> None:
    nothing = COUNTS.model_copy(update={"tokens": 0, "trained_tokens": 0, "rejected_rows": 0, "all_rows": False})
    page = text(html(PREVIEW.model_copy(update={"rows": (), "rejected": (), "warnings": (), "counts": nothing}), "x"))
    assert "No row begins at this line or after it." in page
    assert "from the first 12,000 rows of the file, which are counted" in page
    assert "Before you train" not in page
