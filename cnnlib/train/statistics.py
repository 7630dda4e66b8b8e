"""Statistics of runs: means and differences with their intervals, many comparisons at once, ranks, and the words for them.

An interval of 95% is one that covers the true value in 95 of 100 repetitions of the whole experiment, as far as seeds vary
like draws from a normal distribution. With three seeds it is wide: t is 4.30 and not 1.96.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value, the interval [low, high] that holds the truth with `confidence`, and from how many numbers it comes."""

    value: float
    low: float
    high: float
    count: int
    p: float = math.nan  # of the hypothesis that the truth is 0
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def t_tail(value: float, freedom: float) -> float:
    """The chance that a variable of Student's distribution is at least so far from 0, on either side.

    It is the regularized incomplete beta function I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + value^2), here by
    Lentz's continued fraction (Numerical Recipes, section 6.4).
    """
    x = freedom / (freedom + value**2)
    a, b = freedom / 2, 0.5
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    return _beta(a, b, x)


def _beta(a: float, b: float, x: float) -> float:
    if x <= 0:
        return 0.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    total = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / (1 + term * d), 1 + term / c
            total *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return front * total


def t_quantile(probability: float, freedom: float) -> float:
    """The t below which a variable of Student's distribution lies with this probability, at least one half."""
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 2 * (1 - probability):
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 2 * (1 - probability) else (low, middle)
    return (low + high) / 2


def _checked(values: Sequence[float], least: int) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"{array.size} values; at least {least} are needed")
    if not np.isfinite(array).all():
        raise ValueError(f"values must be finite numbers, not {array[~np.isfinite(array)][0]}")
    return array


def mean(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean of independent values and its t-interval: mean +- t s / sqrt(n) with n - 1 degrees of freedom.

    Raises `ValueError` for fewer than two values.
    """
    array = _checked(values, 2)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r} must lie between 0 and 1")
    count, middle, error = len(array), float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array))
    reach = t_quantile((1 + confidence) / 2, count - 1) * error
    p = t_tail(middle / error, count - 1) if error else (1.0 if middle == 0 else 0.0)
    return Estimate(middle, middle - reach, middle + reach, count, p, confidence)


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of first - second, pair by pair, and its t-interval; pairs share what varies, such as the seed.

    Raises `ValueError` for different numbers of values.
    """
    one, two = _checked(first, 2), _checked(second, 2)
    if len(one) != len(two):
        raise ValueError(f"{len(one)} values cannot be paired with {len(two)}")
    return mean(one - two, confidence)


def difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of first less mean of second, of independent values whose spreads may differ: Welch's interval."""
    one, two = _checked(first, 2), _checked(second, 2)
    errors = one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)
    middle, error = float(one.mean() - two.mean()), math.sqrt(sum(errors))
    if not error:
        return Estimate(middle, middle, middle, len(one) + len(two), 1.0 if middle == 0 else 0.0, confidence)
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / (len(one) - 1) + errors[1] ** 2 / (len(two) - 1))
    reach = t_quantile((1 + confidence) / 2, freedom) * error
    return Estimate(middle, middle - reach, middle + reach, len(one) + len(two), t_tail(middle / error, freedom), confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979): p-values so raised that one below 0.05 among all of them is by chance in 5% of cases at most.

    The k-th smallest of m is multiplied by m - k + 1, and none may fall below one before it. It is valid however the
    comparisons depend on each other, and never weaker than Bonferroni's. (Benjamini and Hochberg's bounds the share of
    false findings instead, which suits a search with hundreds of candidates; a book that names ten effects should not
    be wrong about one.) Raises `ValueError` for a p-value outside [0, 1].
    """
    array = _checked(p_values, 0) if len(p_values) else np.zeros(0)
    if ((array < 0) | (array > 1)).any():
        raise ValueError(f"p-values lie between 0 and 1, not {array[(array < 0) | (array > 1)][0]}")
    order, raised, largest = np.argsort(array, kind="stable"), [0.0] * len(array), 0.0
    for place, row in enumerate(order):
        largest = max(largest, min(1.0, (len(array) - place) * array[row]))
        raised[row] = float(largest)
    return raised


def many(comparisons: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, paired: bool = True,
         confidence: float = 0.95) -> dict[str, Estimate]:
    """Differences of several pairs of runs, with p-values after Holm's correction and intervals that hold all at once.

    The intervals are Bonferroni's (each at 1 - (1 - confidence) / m), which are a little wider than Holm's p-values ask.
    """
    compare, level = paired_difference if paired else difference, 1 - (1 - confidence) / max(1, len(comparisons))
    found = {name: compare(first, second, level) for name, (first, second) in comparisons.items()}
    raised = holm([estimate.p for estimate in found.values()])
    return {name: Estimate(e.value, e.low, e.high, e.count, p, confidence) for (name, e), p in zip(found.items(), raised)}


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1 on; equal values share the mean of their places."""
    array = np.asarray(values, dtype=float)
    below = (array[:, None] > array[None, :]).sum(1)
    equal = (array[:, None] == array[None, :]).sum(1)
    return below + (equal + 1) / 2


def rank_correlation(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Spearman's rho: the correlation of the ranks, ties included, and its interval.

    The interval is Fisher's, tanh(artanh(rho) +- z sqrt((1 + rho^2 / 2) / (n - 3))), with the variance of Bonett and Wright
    (2000), which holds for ranks; p comes from the t-distribution. Needs four pairs, and values that are not all equal.
    """
    one, two = _checked(first, 4), _checked(second, 4)
    if len(one) != len(two):
        raise ValueError(f"{len(one)} values cannot be paired with {len(two)}")
    if len(set(one)) == 1 or len(set(two)) == 1:
        raise ValueError("all values of one side are equal: they have no order")
    count = len(one)
    rho = float(np.clip(np.corrcoef(ranks(one), ranks(two))[0, 1], -1, 1))
    if abs(rho) > 1 - 1e-12:
        return Estimate(rho, rho, rho, count, 0.0, confidence)
    p = t_tail(rho * math.sqrt((count - 2) / (1 - rho**2)), count - 2)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((1 + rho**2 / 2) / (count - 3))
    return Estimate(rho, math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach), count, p, confidence)


def words(estimate: Estimate, *, matters: float = 0.0) -> str:
    """What may be said of an effect: "clear", "may be" or "not shown".

    Clear: the whole interval lies on one side, at least `matters` away from 0, and p, corrected where there were many
    comparisons, is below 1 - confidence. May be: the value is at least `matters` and the interval leaves 0 out, but not
    both of the former. Not shown: the interval holds 0.
    """
    if matters < 0:
        raise ValueError(f"matters={matters!r} must not be negative")
    nearest = max(estimate.low, -estimate.high)  # how far the interval stays away from 0; negative if it holds 0
    if nearest <= 0:
        return "not shown"
    significant = math.isnan(estimate.p) or estimate.p < 1 - estimate.confidence
    if nearest >= matters and significant:
        return "clear"
    return "may be" if abs(estimate.value) >= matters else "not shown"
