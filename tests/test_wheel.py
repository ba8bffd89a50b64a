"""Facts about the wheel: what is in it, and that it works where nothing of the development environment is."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parent.parent
LAYERS = ("agent", "tools", "interp", "prompts")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git would hand out, so that nothing stale gets in."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for layer in LAYERS:
        shutil.copytree(ROOT / layer, copy / layer, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of a new environment that holds the wheel and what it requires, and no more.

    The required distributions are linked from this environment instead of downloaded again; development tools and the
    editable install are not among them.
    """
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    for name in required():
        link(metadata.distribution(name), site)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "-qq", "--no-index"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True, capture_output=True)
    return home / "bin"


def required() -> set[str]:
    """Return the distributions that the wheel needs at run time, directly or through others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [Requirement(text) for text in project["dependencies"]]
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen or not any(True for _ in metadata.Distribution.discover(name=wanted.name)):
            continue
        seen.add(str(wanted))
        found.add(canonicalize_name(wanted.name))
        waiting += needs(wanted)
    return found


def needs(wanted: Requirement) -> list[Requirement]:
    """Return what an installed distribution requires here, with the extras asked for."""
    inner = [Requirement(text) for text in metadata.requires(wanted.name) or []]
    extras = ["", *wanted.extras]
    return [one for one in inner if not one.marker or any(one.marker.evaluate({"extra": name}) for name in extras)]


def link(distribution: metadata.Distribution, site: Path) -> None:
    """Link a distribution's files into `site`, folder by folder where it owns the folder's name."""
    for top in {Path(str(file)).parts[0] for file in distribution.files or []} - {".."}:
        source = Path(str(distribution.locate_file(top)))
        if source.exists() and not (site / top).exists():
            (site / top).symlink_to(source)


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "COLUMNS": "120"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_packages_and_their_data(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"premortem", next(top for top in tops if top.endswith(".dist-info"))}
    assert {name.split("/")[1] for name in names if name.startswith("premortem/")} == set(LAYERS)
    for layer in LAYERS:
        assert f"premortem/{layer}/py.typed" in names
    for data in ("agent/templates/report.html.j2", "agent/templates/report.css", "interp/requirements-models.txt"):
        assert f"premortem/{data}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_data_file_of_the_packages_is_in_the_wheel(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    here = {
        f"premortem/{path.relative_to(ROOT)}"
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here - names == set()


def test_no_test_and_no_demo_is_in_the_wheel(wheel: Path):
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "tests" in name or "demo" in name]


def test_development_tools_are_not_in_the_clean_environment(clean: Path, tmp_path: Path):
    for tool in ("pytest", "hypothesis", "mypy"):
        assert run(clean / "python", "-c", f"import {tool}", cwd=tmp_path).returncode != 0


@pytest.mark.parametrize("command", ["agent", "premortem"])
def test_the_command_answers_from_the_wheel_alone(clean: Path, tmp_path: Path, command: str):
    done = run(clean / command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_installed_package_is_the_one_that_runs(clean: Path, tmp_path: Path):
    done = run(clean / "python", "-c", "import premortem.agent.cli as c; print(c.__file__)", cwd=tmp_path)
    assert str(clean.parent) in done.stdout


def test_a_command_that_writes_works_from_the_wheel_alone(clean: Path, tmp_path: Path):
    done = run(clean / "agent", "runs", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_module_imports_from_the_wheel_alone(clean: Path, tmp_path: Path):
    program = (
        "import importlib, pkgutil, premortem.agent, premortem.tools, premortem.interp, premortem.prompts\n"
        "for p in (premortem.agent, premortem.tools, premortem.interp, premortem.prompts):\n"
        "    for m in (m for m in pkgutil.iter_modules(p.__path__) if m.name != '__main__'):\n"
        "        importlib.import_module(f'{p.__name__}.{m.name}')\n"
    )
    done = run(clean / "python", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
