"""Learning a WordPiece vocabulary that is the same on every run, which the library's own trainer does not promise."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

Pair = tuple[str, str]


def learn_pieces(words: Mapping[str, int], spelling: list[str], size: int) -> list[str]:
    """The pieces in `spelling`, then the most frequent merges of neighbours, `size` of them at most.

    `words` counts whole words; a piece that continues a word begins with `##`. Ties go by the alphabet.
    Source: Sennrich et al., arXiv 1508.07909, algorithm 1, with WordPiece's continuation mark.
    """
    spelled = [[word[0], *(f"##{letter}" for letter in word[1:])] for word in sorted(words) if word]
    counts = [words[word] for word in sorted(words) if word]
    frequency: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, pieces in enumerate(spelled):
        _count(pieces, index, counts[index], frequency, holders)
    vocabulary = dict.fromkeys(spelling)
    alphabet = Counter(piece for pieces, n in zip(spelled, counts, strict=True) for piece in pieces * n)
    vocabulary |= dict.fromkeys(sorted(alphabet, key=lambda piece: (-alphabet[piece], piece)))
    while len(vocabulary) < size and frequency:
        best = min(frequency, key=lambda pair: (-frequency[pair], pair))
        if frequency[best] <= 0:
            break
        vocabulary[best[0] + best[1].removeprefix("##")] = None
        for index in sorted(holders[best]):
            _count(spelled[index], index, -counts[index], frequency, holders)
            spelled[index] = _merge(spelled[index], best)
            _count(spelled[index], index, counts[index], frequency, holders)
        del frequency[best], holders[best]
    return list(vocabulary)[:size]


def _count(
    pieces: list[str], index: int, count: int, frequency: Counter[Pair], holders: defaultdict[Pair, set[int]]
) -> None:
    for pair in pairwise(pieces):
        frequency[pair] += count
        holders[pair].add(index)


def _merge(pieces: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece.removeprefix("##")
        else:
            merged.append(piece)
    return merged
