"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """Return the folder of the embedded model; PREMORTEM_TEST_MODEL names another one."""
    if folder := os.environ.get("PREMORTEM_TEST_MODEL"):
        return Path(folder)
    from premortem.interp.models import fetch_model

    return fetch_model(offline=True)
