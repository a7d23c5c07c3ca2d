"""Student's t distribution, to full precision."""

from __future__ import annotations

import math

from endolux.errors import UsageError


def student_tail(t: float, freedom: int) -> float:
    """Probability of a Student t variable beyond +-t: the incomplete beta function of freedom / (freedom + t^2).

    Example:
        >>> round(student_tail(1.0, 1), 12)
        0.5
    """
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution, to full precision.

    Args:
        probability: between 0 and 1.
        freedom: degrees of freedom, at least 1.

    Example:
        >>> round(student_quantile(0.975, 10), 6)
        2.228139
    """
    if not 0 < probability < 1 or freedom < 1:
        raise UsageError(
            f"Quantile {probability} with {freedom} degrees of freedom",
            why="A quantile lies at a probability, of a distribution that has degrees of freedom.",
            fix="Use a probability between 0 and 1.",
            error_id="metrics.statistics",
        )
    tail = 2 * min(probability, 1 - probability)
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > tail:
        high *= 2
    # Bisection: the tail falls steadily, and each step wins a bit.
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if student_tail(middle, freedom) > tail else (low, middle)
    return math.copysign((low + high) / 2, probability - 0.5)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    # Regularised; continued fraction (Press et al., Numerical Recipes, section 6.4), on the side where it converges.
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            c = 1 + numerator / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * fraction
