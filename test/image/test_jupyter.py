"""JupyterLab: the server starts with the image's configuration, and a notebook runs."""

import subprocess

import nbformat
from nbclient import NotebookClient


def test_lab_knows_the_configuration() -> None:
    """The configuration in /etc/jupyter is read."""
    argv = ["/opt/conda/bin/jupyter", "lab", "--show-config"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "/etc/jupyter/jupyter_server_config.py" in done.stdout
    assert "8888" in done.stdout


def test_start_script() -> None:
    """The command of the image is the environment's JupyterLab."""
    argv = ["/usr/local/bin/start-jupyterlab", "--version"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip().count(".") == 2


def test_a_notebook_runs() -> None:
    """The Python kernel starts, computes and answers."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys; print(6 * 7, sys.prefix)")])
    NotebookClient(notebook, timeout=120).execute()
    assert notebook.cells[0].outputs[0].text == "42 /opt/conda\n"
