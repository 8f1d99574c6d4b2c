"""What may be said of two settings from a few runs of each."""

import math
from collections.abc import Sequence
from statistics import mean, stdev, variance
from typing import Any

from scipy import stats

CONFIDENCE = 0.95


def difference(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """By how much `first` is above `second`, run by run: runs of the same seed stand in the same place.

    size: the mean difference; limit: half of its confidence interval, by Student's t; known: whether there is
    one, which takes two runs.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    runs = len(differences)
    if runs < 2:
        return {"size": mean(differences), "limit": 0.0, "known": False}
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1)
    limit = float(quantile) * stdev(differences) / math.sqrt(runs)
    return {"size": mean(differences), "limit": limit, "known": True}


def varies_more(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether `first` spreads more than `second`, by the two-sided F test; one run cannot tell: no."""
    if min(len(first), len(second)) < 2:
        return False
    least = stats.f.ppf((1 + CONFIDENCE) / 2, len(first) - 1, len(second) - 1)
    return bool(variance(first) > least * variance(second))
