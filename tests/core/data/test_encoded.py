"""A row's first trained tokens."""

from core.data.encoded import IGNORED, Encoded


def row(labels: list[int]) -> Encoded:
    return Encoded.cut(range(10, 10 + len(labels)), labels, max_length=100, line=7)


def test_a_row_ends_with_its_nth_trained_token() -> None:
    whole = row([IGNORED, IGNORED, 12, 13, IGNORED, 15, 16])
    for count, end in ((1, 3), (2, 4), (3, 6)):
        cut = whole.first_trained(count)
        assert cut.input_ids.tolist() == whole.input_ids.tolist()[:end]
        assert cut.labels.tolist() == whole.labels.tolist()[:end]
        assert (cut.trained_tokens, cut.line) == (count, 7)


def test_a_row_with_no_more_trained_tokens_stays() -> None:
    for whole in (row([IGNORED, 11]), row([IGNORED, IGNORED])):
        assert whole.first_trained(1) is whole
