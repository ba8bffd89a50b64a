"""Fixtures that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from premortem.agent.store import Store
from scripted_llm import CANARY, QuietTime


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones, so that of several processes none is left waiting for another's last file."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """Return the folder of the embedded model; PREMORTEM_TEST_MODEL names another one."""
    if folder := os.environ.get("PREMORTEM_TEST_MODEL"):
        return Path(folder)
    from premortem.interp.embedded import fetch_model

    return fetch_model(offline=True)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> QuietTime:
    """The key, and no waiting between tries; `slept` says for how long it would have been."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    quiet = QuietTime()
    monkeypatch.setattr("openai._base_client.time", quiet)
    monkeypatch.setattr("tenacity.nap.time", quiet)
    return quiet


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An open run database."""
    with Store(tmp_path / "premortem.db") as opened:
        yield opened
