"""From single comparisons of candidates to what each is worth."""

from __future__ import annotations

from collections.abc import Mapping

from prefopt.pairs.stages import Judged

ALONE = "no other candidate to compare with"


def judged_by_wins(count: int, wins: Mapping[tuple[int, int], float | None], unread: str) -> Judged:
    """Scores of candidates that were compared two by two: the mean of P(i beats j) over the others.

    count: candidates. wins: (i, j) with i < j to P(i beats j), or None where a comparison gave nothing. unread: the
    reason of candidates that are without a score for that: as few as need be, so that of all others each has met each.
    Their rows and columns in `Judged.wins` are 0.5 and mean nothing.
    """
    dropped: set[int] = set()
    while gaps := [pair for pair, value in wins.items() if value is None and not dropped & set(pair)]:
        dropped.add(max(range(count), key=lambda i: (sum(i in pair for pair in gaps), i)))
    kept = [i for i in range(count) if i not in dropped]
    if len(kept) < 2:
        return Judged((None,) * count, (unread if dropped else ALONE,) * count)
    matrix = [[0.5] * count for _ in range(count)]
    for (i, j), value in wins.items():
        if value is not None and not dropped & {i, j}:
            matrix[i][j], matrix[j][i] = value, 1 - value
    scores = [
        None if i in dropped else sum(matrix[i][j] for j in kept if j != i) / (len(kept) - 1) for i in range(count)
    ]
    reasons = tuple(unread if i in dropped else None for i in range(count))
    return Judged(tuple(scores), reasons, tuple(tuple(row) for row in matrix))
