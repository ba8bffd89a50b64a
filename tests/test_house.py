"""Facts about the house: how the folders become packages, what may import what, and what the documentation covers."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata as metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from test_cli import WORDS

ROOT = Path(__file__).parent.parent
LAYERS = ("agent", "tools", "interp", "prompts")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TEXTS = {".py", ".md", ".yaml", ".j2", ".css", ".sql", ".txt"}
SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the full names that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} has a relative import"
            found.add(node.module or "")
    return found


def test_every_folder_is_a_package_of_premortem():
    for layer in LAYERS:
        assert importlib.import_module(f"premortem.{layer}").__file__ == str(ROOT / layer / "__init__.py")
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {f"premortem.{'.'.join(path.parts)}" for path in folders}
    assert all((ROOT / path / "__init__.py").is_file() for path in folders)


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: str(p.name))
def test_no_file_imports_a_bare_folder(path: Path):
    assert not [name for name in imports(path) if name.split(".")[0] in LAYERS]


def test_no_generic_name_is_installed():
    files = metadata.distribution("premortem").read_text("top_level.txt") or ""
    assert files.split() in ([], ["premortem"])


def test_no_word_of_the_demos_bugs_stands_in_what_is_installed():
    bugs = re.compile(r"(?i)goblin|\bponds?\b|\bfish(es)?\b|\bstink|\bstench|\bodou?rs?\b|\bquantum\b|\bcosmic\b")
    texts = [path for layer in LAYERS for path in (ROOT / layer).rglob("*") if path.suffix in TEXTS]
    assert len(texts) > 150
    found = {path.name: bugs.search(path.read_text(encoding="utf-8")) for path in texts}
    assert {name: match[0] for name, match in found.items() if match} == {}


def test_every_module_opens_by_teaching_itself():
    assert [path.name for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_what_is_imported_is_declared():
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]["validate"]
    declared |= {canonicalize_name(Requirement(text).name) for text in extras}
    providers = metadata.packages_distributions()
    used = {name.split(".")[0] for path in SOURCES for name in imports(path)}
    used -= {"premortem", "pydantic_core"}  # pydantic pins its core itself
    undeclared = {
        name
        for name in used
        if name in providers and not declared & {canonicalize_name(dist) for dist in providers[name]}
    }
    assert undeclared == set()


def test_the_constraints_pin_everything_exactly_and_fit_the_ranges():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    assert all(str(pin.specifier).startswith("==") for pin in pins.values())
    assert str(pins["torch"].specifier) == "==2.13.0"
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *extras["dev"], *extras["validate"]]:
        wanted = Requirement(text)
        pin = str(pins[canonicalize_name(wanted.name)].specifier).removeprefix("==")
        assert wanted.specifier.contains(pin), f"{wanted.name} is pinned to {pin}"


def test_the_ci_runs_what_a_developer_runs():
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands[-2:] == ["make test", "make check"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench-encode", "clean"])
def test_the_makefile_has_and_explains_each_target(target: str):
    text = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", text, re.MULTILINE)
    assert re.search(rf'@echo "make {target} ', text)


@pytest.mark.parametrize("words", WORDS)
def test_readme_and_changelog_name_every_command(words: str):
    assert f"`agent {words}`" in (ROOT / "README.md").read_text()
    if words not in ("runs", "show"):
        assert f"`agent {words}`" in (ROOT / "CHANGELOG.md").read_text()


def test_the_licence_is_ours_to_give():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Copyright 2026 The Premortem authors" in text


def test_a_module_outside_the_database_knows_no_sqlite_utils():
    users = {path.name for path in SOURCES if any(name.startswith("sqlite_utils") for name in imports(path))}
    assert users <= {"database.py", "migrations.py"}
    assert {path.name for path in SOURCES if "typer" in {n.split(".")[0] for n in imports(path)}} <= {
        "cli.py",
        "cli_lens.py",
        "cli_options.py",
        "cli_runs.py",
        "cli_validate.py",
    }
