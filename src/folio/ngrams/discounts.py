"""What all n-gram models share: the Kneser-Ney discounts."""

from __future__ import annotations

Discounts = tuple[float, float, float]


def discounts_of(ones: int, twos: int, threes: int, fours: int) -> Discounts:
    """Discounts of a count of 1, of 2, and of 3 or more.

    >>> discounts_of(100, 50, 25, 10)
    (0.5, 1.25, 2.2)
    """
    if not (ones and twos and threes and fours):  # happens with few symbols
        return (0.5, 0.75, 0.9)
    y = ones / (ones + 2 * twos)
    first, second, third = 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 0.0
    third = 3 - 4 * y * fours / threes
    return (min(max(first, 0.05), 1.0), min(max(second, 0.05), 2.0), min(max(third, 0.05), 3.0))
