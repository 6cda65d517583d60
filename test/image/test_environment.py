"""What every image must be: its own Python, its own version, an ordinary user, a sound set of packages."""

import os
import shutil
import ssl
import subprocess
import sys


def test_python_is_the_environment() -> None:
    """Python runs from the prefix, and is the one on PATH."""
    assert sys.prefix == "/opt/conda"
    assert os.path.realpath(shutil.which("python") or "").startswith("/opt/conda/bin/")


def test_version_is_stated() -> None:
    """The image tells its version."""
    assert os.environ["IMAGE_VERSION"].count(".") >= 2


def test_packages_agree() -> None:
    """Each Python package finds the ones that it requires, in versions that it accepts."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tls_has_authorities() -> None:
    """The CA bundle of the environment loads."""
    assert len(ssl.create_default_context(cafile="/opt/conda/ssl/cacert.pem").get_ca_certs()) > 50
