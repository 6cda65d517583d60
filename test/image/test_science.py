"""The packages that people come for: small computations whose results are known."""

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import sympy
import torch
import xarray as xr
from numba import njit
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score


def test_numpy_solves() -> None:
    """Linear algebra: the BLAS loads."""
    assert np.allclose(np.linalg.solve([[2.0, 1.0], [1.0, 3.0]], [3.0, 5.0]), [0.8, 1.4])


def test_scipy_minimizes() -> None:
    """A compiled optimizer runs."""
    assert scipy.optimize.minimize_scalar(lambda x: (x - 3) ** 2).x == pytest.approx(3)


def test_sympy_integrates() -> None:
    """Symbols."""
    x = sympy.Symbol("x")
    assert sympy.integrate(2 * x, (x, 0, 3)) == 9


def test_pandas_groups() -> None:
    """A group-by over a frame with time zones: the zone data are there."""
    days = pd.date_range("2026-01-01", periods=4, freq="D", tz="Europe/Vienna")
    frame = pd.DataFrame({"day": days, "kind": list("abab"), "value": [1, 2, 3, 4]})
    assert frame.groupby("kind")["value"].sum().to_dict() == {"a": 4, "b": 6}


def test_parquet_comes_back() -> None:
    """A frame goes through Parquet, where pyarrow is part of the image."""
    pytest.importorskip("pyarrow", reason="no pyarrow on this platform")
    frame = pd.DataFrame({"x": [1, 2, 3], "y": list("abc")})
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    pd.testing.assert_frame_equal(pd.read_parquet(buffer), frame)


def test_xarray_selects() -> None:
    """Labelled arrays."""
    data = xr.DataArray([1.0, 2.0, 3.0], dims="t", coords={"t": [10, 20, 30]})
    assert float(data.sel(t=20)) == 2.0


def test_numba_compiles() -> None:
    """The LLVM of the environment makes machine code."""
    total = njit(lambda n: sum(range(n)))
    assert total(10) == 45


def test_scikit_learn_learns() -> None:
    """A forest on the iris data, which the package ships."""
    features, target = load_iris(return_X_y=True)
    assert cross_val_score(RandomForestClassifier(20, random_state=0), features, target, cv=3).mean() > 0.9


def test_matplotlib_draws() -> None:
    """A figure becomes a PNG with no display."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([0, 1, 4, 9])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_pytorch_fits_a_line() -> None:
    """Gradients on the processor."""
    x = torch.linspace(0, 1, 32).unsqueeze(1)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), 2 * x + 1)
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3
