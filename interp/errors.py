"""Every error that Premortem raises on purpose, drawn once.

    PremortemError                 one clear line for the user, exit code 1
    ├── DataError                  the pairs: what was seen, and in which row
    │   ├── RowError               one row cannot be read; the reader quarantines it and goes on
    │   └── NoPairs                nothing usable is left
    ├── SpecError                  the spec: which line, and what to write instead
    ├── ModelError                 a model cannot be fetched, verified or loaded
    ├── LensError                  an SAE cannot be loaded
    │   └── LensMisfit             it loads, but does not reconstruct this model on these pairs
    ├── StoreError                 the database: locked, damaged, from a newer version
    │   └── RunBusy                another process holds the run
    ├── ExportError                the target exists, or the input has changed since the run
    ├── LlmError                   the LLM endpoint did not do its part
    │   ├── LlmUnavailable         retry: it does not answer, or with no completion; the same command goes on later
    │   ├── LlmUnusable            repair: it answered, but not what was asked; the text is a hint for the next try
    │   ├── LlmStopped             stop: it will not serve this request, or the run's budget is used up
    │   └── LlmMisconfigured       configuration: address, key or model are wrong
    └── ToolError                  a tool call that cannot be served; a planner may correct it and try again

A message says what was seen and what to do about it. Nothing here knows about exit codes beyond that first line.
"""

from __future__ import annotations

from typing import Literal


class PremortemError(Exception):
    """Base of every expected failure; its text is shown to the user as it is."""


class DataError(PremortemError):
    """The preference data cannot be used as given."""


class RowError(DataError):
    """One row cannot be read as a pair; the text gives the reason without the row number."""


class PromptlessRow(RowError):
    """A row without a prompt column whose responses share no beginning that could be one."""


class NoPairs(DataError):
    """A dataset holds no usable pair."""


class SpecError(PremortemError):
    """The model spec cannot be understood."""


class ModelError(PremortemError):
    """A model cannot be fetched, verified or loaded."""


class LensError(PremortemError):
    """An SAE cannot be loaded, or is not in a safe format."""


class LensMisfit(LensError):
    """An SAE loads but does not reconstruct the model's activations on the user's pairs."""


class StoreError(PremortemError):
    """The run database cannot be read or written."""


class RunBusy(StoreError):
    """Another process is working on the same run."""


class ExportError(PremortemError):
    """The debugged dataset cannot be written."""


class ToolError(PremortemError):
    """A tool call that cannot be served as asked; the text is a hint for the next try."""


class LlmError(PremortemError):
    """The LLM endpoint did not do its part."""

    def __init__(self, message: str = "", *, cause: Literal["unknown", "silence", "everywhere"] = "unknown") -> None:
        """Say what was seen; `cause` says whose fault it may be.

        `silence`: nothing came back. `everywhere`: the endpoint says that it would not answer any request now, whatever
        is asked. Else it may fail at this request alone.
        """
        super().__init__(message)
        self.cause = cause


class LlmUnavailable(LlmError):
    """The endpoint does not answer, or answers with something that is no completion, however often it is asked."""


class LlmUnusable(LlmError):
    """A completion that does not hold what was asked for; the text is a hint for the LLM's next try."""


class LlmStopped(LlmError):
    """The endpoint refuses this very request, or the run may ask no more; asking again would change nothing."""


class LlmMisconfigured(LlmError):
    """The endpoint's address, key or model is wrong; only the user can mend it."""
