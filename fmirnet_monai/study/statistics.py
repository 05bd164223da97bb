"""What a comparison's means are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, wilcoxon

FEWEST = 3  # subjects, below which there is no interval


def p_values(rows: Mapping[str, pd.DataFrame], metric: str) -> dict[str, float]:
    """Two-sided p of the paired Wilcoxon signed-rank test of each row against the first, over their common cases.

    NaN where there are fewer than five common cases; 1 where all of them are equal.
    """
    reference, *others = rows
    result = {}
    for name in others:
        both = pd.concat([rows[row].get(metric, pd.Series(dtype=float)) for row in (reference, name)], axis=1).dropna()
        difference = both.iloc[:, 0] - both.iloc[:, 1]
        if len(both) < 5:
            result[name] = math.nan
        else:
            result[name] = 1.0 if (difference == 0).all() else float(wilcoxon(difference).pvalue)
    return result


def interval(values: pd.Series, subjects: pd.Series) -> tuple[float, float]:
    """95 % bootstrap interval (percentiles) of the mean, drawn over subjects with all their cases.

    Args:
        values: one a case; NaN is left out.
        subjects: of each case.

    Returns:
        both ends; NaN where there are fewer than three subjects.
    """
    grouped = values.dropna().groupby(subjects)
    sums, counts = grouped.sum().to_numpy(), grouped.count().to_numpy()
    if len(sums) < FEWEST:
        return math.nan, math.nan
    found = bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
