"""ROUGE-L: how many words of a text occur in another one in the same order (Lin 2004, section 3).

Own code, because the usual package needs nltk, which is not needed without stemming. Equals rouge-score without its
stemmer on ASCII text; words of other scripts count too. Not here: stemming, summaries of several sentences
(ROUGE-Lsum), words of scripts without spaces.
"""

import re

_WORD = re.compile(r"[^\W_]+")


def split_words(text: str) -> list[str]:
    """Split text into runs of letters and digits, ignoring case."""
    return _WORD.findall(text.casefold())


def lcs_length(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence, by Hyyrö's bit-parallel recurrence (2004): one step for each word of
    `other`, on integers with a bit for each word of `one`."""
    places: dict[str, int] = {}
    for index, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << index
    full = row = (1 << len(one)) - 1
    for word in other:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(one) - row.bit_count()


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1; 0 if either text has no word."""
    found, expected = split_words(answer), split_words(reference)
    if not found or not expected:
        return 0.0
    return 2 * lcs_length(found, expected) / (len(found) + len(expected))
