"""What a comparison's means are worth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, wilcoxon

from fmirnet_monai.study.statistics import interval, p_values


def test_p_values_are_scipys_over_common_cases() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=20), rng.normal(0.4, 1, size=20)
    second[3] = np.nan
    rows = {"a": pd.DataFrame({"dice": first}), "b": pd.DataFrame({"dice": second}), "c": pd.DataFrame({"dice": first})}
    kept = ~np.isnan(second)
    found = p_values(rows, "dice")
    assert found == {"b": pytest.approx(wilcoxon(first[kept], second[kept]).pvalue), "c": 1.0}
    assert np.isnan(p_values({name: table[:4] for name, table in rows.items()}, "dice")["b"])


def test_interval_is_that_of_independent_subjects() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(0.7, 0.1, size=400)
    low, high = interval(pd.Series(means), pd.Series(range(400)))
    half = norm.ppf(0.975) * means.std(ddof=1) / 20
    assert (low, high) == (pytest.approx(means.mean() - half, abs=1e-3), pytest.approx(means.mean() + half, abs=1e-3))
    # ten like cases of each subject say no more than one
    many = interval(pd.Series(np.repeat(means, 10)), pd.Series(np.repeat(range(400), 10)))
    assert many == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    assert np.isnan(interval(pd.Series(means), pd.Series([0] * 200 + [1] * 200))).all()
