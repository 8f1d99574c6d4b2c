"""The report's statistics, against values worked out elsewhere, and its verdicts on claims."""

import math

import pytest
import torch

from Miniproject_1.others.study.claims import ABOVE, ALIKE, CLAIMS, NO_BETTER, Claim, judged
from Miniproject_1.others.study.runs import STUDIES
from Miniproject_1.others.study.statistics import difference, seeds_to_decide, varies_more, verdict


def test_a_difference_has_students_interval():
    # 2 ± 1 over three runs: the table's 4.303 · 1 / √3.
    found = difference([3, 4, 5], [2, 2, 2])
    assert (found["size"], found["limit"]) == (2, pytest.approx(2.484, abs=1e-3))
    assert (found["deviation"], found["seeds"], found["agree"], found["known"]) == (1, 3, True, True)
    # What both have in common does not count: run by run they differ by one.
    found = difference([10.0, 20.0, 30.0], [9.0, 19.0, 29.0])
    assert (found["size"], found["limit"], found["agree"]) == (1, 0, True)
    assert not difference([1, 2, 3], [0, 3, 0])["agree"]
    found = difference([1.5], [1])
    assert (found["size"], found["limit"], found["known"]) == (0.5, 0, False)


@pytest.mark.parametrize(
    ("size", "limit", "bounds", "expected"),
    [
        (1, 0.5, ABOVE, "supported"),
        (-1, 0.5, ABOVE, "contradicted"),
        (0.4, 0.5, ABOVE, "undecided"),
        (-0.4, 0.5, ABOVE, "undecided"),
        (-1, 0.5, NO_BETTER, "supported"),
        (1, 0.5, NO_BETTER, "contradicted"),
        (0.0, 0.05, NO_BETTER, "supported"),
        (0.0, 0.5, NO_BETTER, "undecided"),
        (0.0, 0.05, ALIKE, "supported"),
        (0.4, 0.2, ALIKE, "contradicted"),
        (-0.4, 0.2, ALIKE, "contradicted"),
        (0.0, 0.2, ALIKE, "undecided"),  # not to see a difference is not to see that there is none
        (0.1, 0.05, ALIKE, "undecided"),
    ],
)
def test_a_verdict_is_where_the_whole_interval_lies(size, limit, bounds, expected):
    assert verdict({"size": size, "limit": limit, "known": True}, *bounds) == expected


def test_one_seed_decides_nothing():
    found = difference([2], [1])
    assert verdict(found, *ABOVE) == "undecided" and seeds_to_decide(found, *ABOVE) is None


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        # Cohen's tables: a paired t test of effect d, α 0.05 on two sides, power 0.8.
        (1.0, ABOVE, 10),
        (0.5, ABOVE, 34),
        (0.2, ABOVE, 199),
        (-0.5, ABOVE, 34),  # to contradict takes as many
        (0.5 + ALIKE[1], ALIKE, 34),
        (NO_BETTER[1] - 0.5, NO_BETTER, 34),
    ],
)
def test_the_seeds_that_would_decide_are_those_of_the_tables(size, bounds, expected):
    assert seeds_to_decide({"size": size, "deviation": 1}, *bounds) == expected


def test_seeds_that_were_promised_decide_as_often_as_was_promised():
    """Likeness has two bounds, which no table has: drawn at random, by `verdict` itself."""
    spread = 0.1
    needed = seeds_to_decide({"size": 0.02, "deviation": spread}, *ALIKE)
    draws = 0.02 + spread * torch.randn(4_000, needed, generator=torch.Generator().manual_seed(0))
    words = [verdict(difference(draw, [0.0] * needed), *ALIKE) for draw in draws.tolist()]
    assert words.count("supported") / len(words) == pytest.approx(0.8, abs=0.04)
    assert seeds_to_decide({"size": 0, "deviation": 1e9}, *ABOVE) is None  # no number would


def test_a_claim_is_judged_on_its_own_settings_and_epoch():
    runs = {
        label: [{"psnr": [first + 0.1 * seed, last + 0.2 * seed]} for seed in range(3)]
        for label, first, last in (("a", 20, 30), ("b", 21, 29))
    }
    late = judged(Claim("a above b", "letters", "a", "b"), runs)
    early = judged(Claim("a above b", "letters", "a", "b", epoch=1), runs)
    assert (late["size"], late["verdict"]) == (pytest.approx(1), "supported")
    assert (early["size"], early["verdict"]) == (pytest.approx(-1), "contradicted")
    assert late["needed"] is None
    runs["a"][0]["psnr"][-1] = 28  # 1 dB below b
    unclear = judged(Claim("a above b", "letters", "a", "b"), runs)
    assert unclear["verdict"] == "undecided" and not unclear["agree"]
    assert unclear["needed"] > 3


def test_each_claim_is_of_settings_that_are_run():
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert {claim.first, claim.second} <= STUDIES[claim.study].keys(), claim
        assert claim.bounds[0] < claim.bounds[1] and not math.isnan(sum(claim.bounds))


def test_a_spread_is_larger_only_beyond_what_the_f_test_allows():
    # With two degrees of freedom each, 39.0 times the variance.
    assert varies_more([0, 6.3, 12.6], [0, 1, 2])
    assert not varies_more([0, 6.2, 12.4], [0, 1, 2])
    assert not varies_more([0, 1, 2], [0, 6.3, 12.6])
    assert not varies_more([1], [2])
