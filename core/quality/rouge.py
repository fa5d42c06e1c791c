"""ROUGE-L: how much of a text's words another has in the same order (Lin 2004, section 3).

Own code, since the usual package brings nltk, which is not needed without stemming. The same as rouge-score without its
stemmer on text in ASCII; here words of other scripts count too. Not here: stemming, summaries of several sentences
(ROUGE-Lsum), words of scripts that put no spaces between them.
"""

import re

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Runs of letters and digits, without regard to case."""
    return _WORD.findall(text.casefold())


def common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence, by Hyyrö's bit-parallel recurrence (2004): one step for each word of
    `other`, on integers with a bit for each word of `one`."""
    places: dict[str, int] = {}
    for index, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << index
    whole = row = (1 << len(one)) - 1
    for word in other:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & whole
    return len(one) - row.bit_count()


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1; 0 where either has no word."""
    said, wanted = words(answer), words(reference)
    if not said or not wanted:
        return 0.0
    return 2 * common(said, wanted) / (len(said) + len(wanted))
