"""What all commands share: options, the one JSON document on stdout, and what becomes of an error.

    exit code 0    done
              1    an error: one line on stderr
              2    usage, reported by typer
              3    the forecast breaks the spec, where `--fail-on` asked for it
              130  interrupted; the same command goes on with the run

An error Premortem raises on purpose is shown as it is. Any other one is shown in one line, and its traceback goes to
`premortem.log` in the runs folder, both without secrets; `PREMORTEM_DEBUG=1` prints it instead, as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from premortem.agent.diff import visible
from premortem.agent.redact import Redactor
from premortem.interp.errors import PremortemError

DEFAULT_RUNS_DIR = Path("runs")
LOG = "premortem.log"


class Forecaster(StrEnum):
    """The forecasters to choose from."""

    CALIBRATED = "calibrated"
    EXCESS = "excess"
    PULL = "pull"
    MEAN_DIFFERENCE = "mean-difference"
    EQUAL_LENGTH = "equal-length"
    DISPARITY = "disparity"
    LOGIT = "logit"
    OWN_GAP = "own-gap"
    TILT = "tilt"
    FIRST_ORDER = "first-order"


def _remember(context: typer.Context, folder: Path) -> Path:
    """Keep the runs folder where an error handler finds it."""
    context.meta["runs_dir"] = folder
    return folder


def _stay_offline(offline: bool) -> bool:
    """Tell the hub's library before anything imports it: it looks at the variable once."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return offline


RunsDir = Annotated[
    Path, typer.Option("--runs-dir", help="Folder that holds the runs.", callback=_remember, show_default=True)
]
Db = Annotated[Path | None, typer.Option("--db", help="Run database. Default: premortem.db in the runs folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Map = Annotated[
    list[str] | None, typer.Option("--map", metavar="NAME=COL", help="A column's name, as chosen=better. Repeatable.")
]
Split = Annotated[str | None, typer.Option("--split", help="Split of a hub dataset or of its folder. Default: train.")]
Config = Annotated[str | None, typer.Option("--config", help="Configuration of a hub dataset.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Revision of a hub dataset.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Read only so many lines.")]
Model = Annotated[
    str | None, typer.Option("--model", help="The model to be trained: smollm2 (the default), a folder or a hub id.")
]
Sae = Annotated[str | None, typer.Option("--sae", help="Its SAE: a folder, or RELEASE:SAE_ID of sae-lens.")]
Layer = Annotated[int | None, typer.Option("--layer", min=0, help="Layer that --sae reads, if its files do not say.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing from the network.", callback=_stay_offline)]
Forecasters = Annotated[
    Forecaster | None,
    typer.Option(
        "--forecaster",
        help="How an effect is measured. Default: `calibrated`; `agent validate` compares them on your data "
        "(`first-order`, as dear as training, where it is named).",
    ),
]
RunArg = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, the beginning of one, or `last`.")]


def database_path(db: Path | None, runs_dir: Path) -> Path:
    """Return where the run database is, or would be."""
    return db or runs_dir / "premortem.db"


def place_options(db: Path | None, runs_dir: Path) -> str:
    """Return the options that lead another command to the same runs, each after a space; empty for the usual place."""
    options = ["--runs-dir", str(runs_dir)] if runs_dir != DEFAULT_RUNS_DIR else []
    options += ["--db", str(db)] if db is not None else []
    return "".join(f" {shlex.quote(word)}" for word in options)


def database(db: Path | None, runs_dir: Path) -> Path:
    """Return the path of the run database; its folder is created."""
    path = database_path(db, runs_dir)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PremortemError(f"cannot create the folder {path.parent}: {error.strerror or error}") from error
    return path


def parse_mapping(items: list[str] | None) -> dict[str, str] | None:
    """Read `--map chosen=COL` options into a mapping; raises typer.BadParameter where one is malformed."""
    mapping: dict[str, str] = {}
    for item in items or []:
        name, sign, column = item.partition("=")
        if not sign or not name or not column:
            raise typer.BadParameter(f"{item!r} is not NAME=COLUMN, as in chosen=better_answer", param_hint="--map")
        mapping[name.strip()] = column.strip()
    return mapping or None


def emit(document: Any) -> None:
    """Print `document` as the one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=True, indent=2, default=str) + "\n")


def only_our_stdout() -> contextlib.AbstractContextManager[Any]:
    """Send what libraries print to stderr, because stdout is for the one document."""
    return contextlib.redirect_stdout(sys.stderr)


def say(message: str, style: str = "") -> None:
    """Print one line on stderr, hidden characters shown."""
    Console(stderr=True, highlight=False).print(Text(visible(message), style=style), soft_wrap=True)


class HouseGroup(TyperGroup):
    """The group of all commands: turns what a command raises into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except PremortemError as error:
            if os.environ.get("PREMORTEM_DEBUG"):
                raise
            say(f"error: {error}", "red")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            say("interrupted; what was done is kept, and the same command goes on from there", "yellow")
            raise typer.Exit(130) from error
        except Exception as error:
            if _belongs_to_typer(error) or os.environ.get("PREMORTEM_DEBUG"):
                raise
            say(f"error: {_one_line(error)} ({_logged(ctx)})", "red")
            raise typer.Exit(1) from error


def _belongs_to_typer(error: Exception) -> bool:
    """Whether typer itself reports the error: usage, `Exit`, `Abort`, or a reader of our output that went away."""
    return isinstance(error, BrokenPipeError) or type(error).__module__.split(".")[0] in ("typer", "click")


def _one_line(error: Exception) -> str:
    lines = Redactor.of_environment()(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _logged(ctx: Any) -> str:
    """Append the traceback to the log and return where it is."""
    path = Path(ctx.meta.get("runs_dir", DEFAULT_RUNS_DIR)) / LOG
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            file.write(Redactor.of_environment()(f"$ {' '.join(sys.argv)}\n{traceback.format_exc()}\n"))
    except OSError:
        return "set PREMORTEM_DEBUG=1 to see where"
    return f"details in {path}"
