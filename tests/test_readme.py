"""Every command in a console block of the documentation is run here, in the order a reader would type it.

`agent` commands run for real except for the model: a bench that answers from row numbers stands in for it. What needs
a whole machine is named in `ELSEWHERE` with the target or test that runs it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fake_bench import FakeBench
from premortem.agent.spec import FrontMatter, parse_spec
from scripted_llm import ScriptedLlm
from test_cli import Agent, agent, bench

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "agent lens check pairs.jsonl": ("test_cli_model.py", "def test_lens_check_measures_the_embedded_lens"),
    "agent lens train pairs.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --layer 12 --layer 16 -o my-sae": (
        "test_cli_model.py",
        "def test_lens_train_leaves_a_folder_that_lens_check_reads",
    ),
    "agent validate pairs.jsonl --limit 300": ("test_validation.py", "def test_the_command_trains_and_tells"),
}
"""Commands that need a real lens or real training: the test file that covers them, and what it must hold."""

__all__ = ["agent", "bench"]


def console_commands(name: str) -> list[str]:
    """Return the commands of a document's console blocks."""
    blocks = BLOCK.findall((ROOT / name).read_text())
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines), f"{name}: a console block holds more than commands"
    return [line[2:] for line in lines]


DOCUMENTS = {name: console_commands(name) for name in ("README.md", "CONTRIBUTING.md")}
MAKE = sorted({command for commands in DOCUMENTS.values() for command in commands if command.startswith("make ")})


def test_the_readme_begins_with_three_lines_and_two_commands():
    text = (ROOT / "README.md").read_text()
    title, *rest = text.splitlines()
    assert title == "# Premortem"
    assert [bool(line) for line in rest[:5]] == [False, True, True, True, False]
    assert DOCUMENTS["README.md"][:2] == ["make demo", "make test"]


def test_every_documented_agent_command_works(
    agent: Agent, bench: FakeBench, socket_enabled: None, monkeypatch: pytest.MonkeyPatch
):
    with ScriptedLlm() as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.address)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        run_all(agent)
    assert llm.requests, "the endpoint of the documentation's own example was asked"


def run_all(agent: Agent) -> None:
    for command in [c for commands in DOCUMENTS.values() for c in commands if c.startswith("agent ")]:
        if command not in ELSEWHERE:
            result = agent(*shlex.split(command)[1:])
            assert result.exit_code == 0, f"{command}: {result.output}"


def test_nothing_is_documented_that_nobody_runs():
    for name, commands in DOCUMENTS.items():
        assert commands, f"{name} has no console block"
        assert not [command for command in commands if not command.startswith(("agent ", "make "))]


@pytest.mark.parametrize("command", MAKE)
def test_every_documented_target_exists(command: str):
    done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted(ELSEWHERE))
def test_what_runs_elsewhere_runs_there(command: str):
    file, part = ELSEWHERE[command]
    assert part in (ROOT / "tests" / file).read_text()


def test_the_front_matter_in_the_readme_has_every_key_and_is_read():
    (example,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    front = parse_spec(f"{example}\n- No flattery and no made-up links.\n").front
    assert front.model_fields_set == set(FrontMatter.model_fields)
    assert (front.limit, front.limits) == (0.02, {"flattery": 0.05})


def test_the_exit_codes_in_the_readme_are_those_of_the_command_line():
    text = (ROOT / "README.md").read_text()
    assert re.search(r"0 done; 1 an error.*; 2 usage; 3 .*--fail-on.*; 130 interrupted", text, re.DOTALL)


def test_links_and_pictures_in_the_readme_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
