"""What may be said of two settings from a few runs of each."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8  # the chance that so many seeds decide
MOST = 1_000  # seeds, beyond which nobody would go


def difference(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """By how much `first` is above `second`, run by run: runs of the same seed stand in the same place.

    size: the mean difference; limit: half of its confidence interval, by Student's t; deviation: of the
    differences; seeds: their number; agree: whether all have the same sign; known: whether there is an
    interval, which takes two runs.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    runs = len(differences)
    size, known = mean(differences), runs > 1
    spread = deviation(differences)
    limit = float(_quantile(runs)) * spread / math.sqrt(runs) if known else 0.0
    agree = min(differences) > 0 or max(differences) < 0
    return {
        "size": size,
        "limit": limit,
        "deviation": spread,
        "seeds": runs,
        "agree": agree,
        "known": known,
    }


def verdict(found: dict[str, Any], low: float, high: float) -> str:
    """What `difference` has found says of the claim that it lies between `low` and `high`.

    "supported" where the whole interval does, "contradicted" where none of it does, else "undecided".
    """
    bottom, top = found["size"] - found["limit"], found["size"] + found["limit"]
    if found["known"] and low < bottom and top < high:
        return "supported"
    if found["known"] and (top < low or high < bottom):
        return "contradicted"
    return "undecided"


def seeds_to_decide(found: dict[str, Any], low: float, high: float) -> int | None:
    """How many seeds would come to a verdict, supported or contradicted, with a chance of `POWER`.

    If the true difference and spread are those that were found: by the noncentral t distribution. None where
    one run says nothing of the spread, and beyond `MOST`, as where the difference is right at a bound.
    """
    size, spread = found["size"], found["deviation"]
    if not spread:
        return None
    bounds = [bound for bound in (low, high) if math.isfinite(bound)]
    if not low < size < high:  # to contradict, only the nearer bound has to be outside of the interval
        bounds = [min(bounds, key=lambda bound: abs(size - bound))]

    def power(seeds: int) -> float:
        distances = (abs(size - bound) / spread * math.sqrt(seeds) for bound in bounds)
        return 1 - sum(float(stats.nct.cdf(_quantile(seeds), seeds - 1, each)) for each in distances)

    numbers = range(2, MOST + 1)
    index = bisect_left(numbers, POWER, key=power)
    return numbers[index] if index < len(numbers) else None


def deviation(values: Sequence[float]) -> float:
    """The standard deviation; 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def varies_more(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether `first` spreads more than `second`, by the two-sided F test; one run cannot tell: no."""
    least = least_ratio(min(len(first), len(second)))
    return least is not None and deviation(first) > least * deviation(second)


def least_ratio(runs: int) -> float | None:
    """By what factor a standard deviation of so many runs must exceed another for the F test; None of one."""
    return math.sqrt(stats.f.ppf((1 + CONFIDENCE) / 2, runs - 1, runs - 1)) if runs > 1 else None


def _quantile(runs: int) -> float:
    return stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1)
