"""What every image must do."""

import importlib.metadata
import os
import ssl
import subprocess
import sys

import jinja2
import numpy as np
import pandas as pd
import yaml


def test_python_is_the_environment() -> None:
    """Python runs from the prefix and knows it."""
    assert sys.prefix == "/opt/conda"
    assert os.path.realpath(sys.executable).startswith("/opt/conda/bin/")


def test_version_is_stated() -> None:
    """The image tells its version."""
    assert os.environ["IMAGE_VERSION"].count(".") >= 2


def test_numpy_computes() -> None:
    """Linear algebra works: the bundled BLAS loads."""
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    assert np.allclose(np.linalg.solve(a, [3.0, 5.0]), [0.8, 1.4])


def test_pandas_groups() -> None:
    """A group-by over a frame with time zones."""
    times = pd.date_range("2026-01-01", periods=4, freq="D", tz="Europe/Vienna")
    frame = pd.DataFrame({"day": times, "kind": list("abab"), "value": [1, 2, 3, 4]})
    assert frame.groupby("kind")["value"].sum().to_dict() == {"a": 4, "b": 6}


def test_tls_has_authorities() -> None:
    """The CA bundle of the environment loads."""
    context = ssl.create_default_context(cafile="/opt/conda/ssl/cacert.pem")
    assert len(context.get_ca_certs()) > 50


def test_text_libraries() -> None:
    """Templates render and YAML parses."""
    assert jinja2.Template("{{ x }}").render(x=yaml.safe_load("[1, 2]")) == "[1, 2]"


def test_entry_points_run() -> None:
    """A console script of a noarch package starts with the right interpreter."""
    done = subprocess.run(["/opt/conda/bin/pytest", "--version"], capture_output=True, text=True, check=True)
    assert importlib.metadata.version("pytest") in done.stdout + done.stderr
