"""The report's statistics, against values worked out elsewhere."""

import pytest

from Miniproject_1.others.study.statistics import difference, varies_more


def test_a_difference_has_students_interval():
    # 2 ± 1 over three runs: the table's 4.303 · 1 / √3.
    found = difference([3, 4, 5], [2, 2, 2])
    assert found == {"size": 2, "limit": pytest.approx(2.484, abs=1e-3), "known": True}
    # What both have in common does not count: run by run they differ by one.
    assert difference([10.0, 20.0, 30.0], [9.0, 19.0, 29.0]) == {"size": 1, "limit": 0, "known": True}
    assert difference([1.5], [1]) == {"size": 0.5, "limit": 0, "known": False}


def test_a_spread_is_larger_only_beyond_what_the_f_test_allows():
    # With two degrees of freedom each, 39.0 times the variance.
    assert varies_more([0, 6.3, 12.6], [0, 1, 2])
    assert not varies_more([0, 6.2, 12.4], [0, 1, 2])
    assert not varies_more([0, 1, 2], [0, 6.3, 12.6])
    assert not varies_more([1], [2])
