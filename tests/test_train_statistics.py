"""Statistics beside scipy's and beside closed forms."""

import math

import numpy as np
import pytest
from libraries import stats

from cnnlib.train.statistics import (
    Estimate, difference, holm, many, mean, paired_difference, rank_correlation, ranks, t_quantile, t_tail, words,
)

ROWS = [[91.2, 90.7, 91.9], [3.0, 3.5, 2.0, 8.0, -1.0], list(np.random.default_rng(0).normal(2, 3, 40))]


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 10, 200])
@pytest.mark.parametrize("value", [0.0, 0.01, 0.5, 1.0, 2.5, 12.0, 300.0])
def test_students_distribution(freedom, value):
    assert t_tail(value, freedom) == pytest.approx(2 * stats.t.sf(value, freedom), rel=1e-9)
    assert t_tail(-value, freedom) == t_tail(value, freedom)
    for probability in (0.5, 0.9, 0.975, 0.9995):
        assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("values", ROWS, ids=len)
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_mean_and_its_interval(values, confidence):
    found = mean(values, confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue) and found.count == len(values)


def test_mean_of_three_by_hand():  # t of two degrees of freedom at 0.975 is 4.3027; the deviations are -1, 0, 1
    found = mean([1.0, 2.0, 3.0])
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-6) and str(found) == "2 [-0.4841, 4.484]"


def test_differences():
    one, two = np.random.default_rng(1).normal(0, 1, 7), np.random.default_rng(2).normal(1, 4, 7)
    paired, apart = paired_difference(one, two), difference(one, two[:5])
    peer = stats.ttest_rel(one, two)
    assert (paired.p, paired.low, paired.high) == pytest.approx((peer.pvalue, *peer.confidence_interval()))
    assert paired.value == pytest.approx((one - two).mean())
    peer = stats.ttest_ind(one, two[:5], equal_var=False)
    assert (apart.p, apart.low, apart.high) == pytest.approx((peer.pvalue, *peer.confidence_interval()))
    assert paired_difference([5, 6, 7], [4, 5, 6]).p == 0 and difference([1, 1], [1, 1]).p == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]
    with pytest.raises(ValueError, match="between 0 and 1, not 1.5"):
        holm([0.1, 1.5])


def test_many_comparisons_are_corrected():
    draw = np.random.default_rng(3)
    noise = {str(k): (draw.normal(0, 1, 5), draw.normal(0, 1, 5)) for k in range(8)}
    noise["effect"] = (np.array([9.0, 9.1, 9.2, 9.0, 9.3]), np.zeros(5) + draw.normal(0, 0.1, 5))
    found = many(noise)
    alone = paired_difference(*noise["effect"])
    assert found["effect"].p == pytest.approx(9 * alone.p) and found["effect"].low < alone.low < alone.high < found["effect"].high
    assert found["effect"].high == pytest.approx(paired_difference(*noise["effect"], 1 - 0.05 / 9).high)
    assert words(found["effect"]) == "clear" and {words(found[str(k)]) for k in range(8)} <= {"not shown", "may be"}
    assert many({"a": (noise["0"])}, paired=False)["a"].p == pytest.approx(difference(*noise["0"]).p)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation(ties):
    draw = np.random.default_rng(4)
    one = draw.integers(0, 6, 30) if ties else draw.normal(size=30)
    two = one + draw.normal(0, 2, 30)
    found, peer = rank_correlation(one, two), stats.spearmanr(one, two)
    assert (found.value, found.p) == pytest.approx((peer.statistic, peer.pvalue))
    assert list(ranks(one)) == list(stats.rankdata(one))
    reach = 1.959963985 * math.sqrt((1 + found.value**2 / 2) / 27)
    assert math.atanh(found.high) - math.atanh(found.value) == pytest.approx(reach) == pytest.approx(
        math.atanh(found.value) - math.atanh(found.low))
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]).low == 1 and rank_correlation(one, -one).value == pytest.approx(-1)


def test_interval_of_rank_correlation_covers_as_often_as_it_says():
    draw, held = np.random.default_rng(5), 0
    truth = 6 / math.pi * math.asin(0.6 / 2)  # Spearman's rho of a normal pair with correlation 0.6
    for _ in range(400):
        pair = draw.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 25)
        found = rank_correlation(pair[:, 0], pair[:, 1])
        held += found.low <= truth <= found.high
    assert 0.91 < held / 400 < 0.98


@pytest.mark.parametrize("estimate, matters, said", [
    ((2, 1, 3, 5, 0.01), 0, "clear"), ((-2, -3, -1, 5, 0.01), 0, "clear"), ((2, -0.1, 4.1, 5, 0.06), 0, "not shown"),
    ((2, 1, 3, 5, 0.2), 0, "may be"), ((2, 1, 3, 5, 0.01), 1.5, "may be"), ((1.2, 1, 1.4, 5, 0.01), 1.5, "not shown"),
    ((-2, -3, -1, 5, 0.01), 0.9, "clear"), ((2, 1, 3, 5, math.nan), 0, "clear"), ((0, 0, 0, 5, 1), 0, "not shown"),
])
def test_words_follow_figures(estimate, matters, said):
    assert words(Estimate(*estimate), matters=matters) == said


@pytest.mark.parametrize("call, message", [
    (lambda: mean([1.0]), "1 values; at least 2"), (lambda: mean([1.0, math.nan]), "finite numbers, not nan"),
    (lambda: mean([1, 2], 1.0), "confidence=1.0"), (lambda: paired_difference([1, 2, 3], [1, 2]), "3 values cannot be paired with 2"),
    (lambda: rank_correlation([1, 2, 3], [1, 2, 3]), "3 values; at least 4"),
    (lambda: rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]), "no order"),
    (lambda: words(Estimate(1, 0, 2, 3), matters=-1), "matters=-1"),
])
def test_errors_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
