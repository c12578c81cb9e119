"""The Python environment that the peers live in."""
import contextlib
import os
import pathlib
import subprocess
import tempfile
import venv


@contextlib.contextmanager
def peers_folder():
    """DURE_PEERS_VENV, or a temporary folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="dure-peers-") as folder:
        yield pathlib.Path(os.environ.get("DURE_PEERS_VENV") or folder)


def python_with(folder, modules, packages):
    """The environment's Python; what is missing there is installed. CalledProcessError if not."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", f"import {', '.join(modules)}"], stderr=subprocess.DEVNULL,
                      check=False).returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python
