"""Facts about the setup by make: what stands in a newcomer's way is told in one line, and a failed try is mended."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
WORKS = """#!/bin/sh
case "$2" in
    venv) echo "$@" > asked; for folder; do :; done; mkdir -p $folder/bin; cp "$0" $folder/bin/python;;
    pip) echo "$@" > installed;;
esac
"""
"""A Python that can do everything: makes a folder as `venv` does, and takes what `pip` is asked for."""
NO_ENSUREPIP = """#!/bin/sh
case "$1 $2" in
    "-m venv") mkdir -p .venv/bin; touch .venv/pyvenv.cfg; cp "$0" .venv/bin/python; exit 1;;
    *"import pip") exit 1;;
esac
"""
"""Debian's Python without python3.11-venv: leaves a folder without pip."""
OLD = "#!/bin/sh\nexit 1\n"
"""A Python that fails the question for its version."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a folder with the Makefile and nothing installed."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    return tmp_path


def make(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run `make setup` with a Python of these lines; empty: there is none."""
    path = folder / "python-stub"
    path.write_text(python)
    path.chmod(0o700)
    words = ["make", "setup", f"PYTHON={path if python else ''}", "VENV=.venv"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("python", ["", OLD])
def test_no_python_or_an_old_one_is_told_in_plain_words(python: str, here: Path):
    done = make(here, python)
    assert done.returncode != 0
    assert "needs python3.11 or newer" in done.stderr and "make PYTHON=" in done.stderr
    assert not (here / ".venv").exists()


def test_a_python_that_works_is_taken_as_it_is(here: Path):
    assert make(here, WORKS).returncode == 0
    assert (here / "asked").read_text().split() == ["-m", "venv", ".venv"]
    assert "-q" in (here / "installed").read_text().split()


def test_a_folder_without_pip_says_what_to_install_and_is_made_anew_afterwards(here: Path):
    for _ in range(2):
        failed = make(here, NO_ENSUREPIP)
        assert failed.returncode != 0 and "apt install python3.11-venv" in failed.stderr
    assert make(here, WORKS).returncode == 0
    assert (here / "asked").read_text().split() == ["-m", "venv", "--clear", ".venv"]
