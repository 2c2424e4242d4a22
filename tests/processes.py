"""Processes for tests, forked from a server that has imported the heavy libraries once.

A new interpreter spends five to eight seconds on imports before it computes anything; a process from here
spends none. All else is as with `spawn`: the server runs nothing of a test, arguments travel by pickle, and
environment, folder and import path are those of the test at that moment.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from bench import cli

IMPORTED = (
    "torch", "torch._dynamo", "pandas", "matplotlib.pyplot", "optuna", "sklearn.ensemble",
    "bench.cli", "bench.api", "bench.experiments.run", "bench.experiments.timing", "bench.experiments.sweep",
)  # fmt: skip


class Process(ForkServerProcess):
    """A process with the environment of the moment at which it was made, not that of the server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environment = dict(os.environ)

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        tempfile.tempdir = None
        super().run()


class Context(ForkServerContext):
    """Processes from the server."""

    Process = Process  # type: ignore[assignment]


CONTEXT = Context()
CONTEXT.set_forkserver_preload(list(IMPORTED))


class Command:
    """`bench WORDS` in a process of its own; it prints into files of a folder."""

    def __init__(self, words: Sequence[str | Path], folder: Path) -> None:
        self._printed = [_new_file(folder) for _ in range(2)]
        self.process = CONTEXT.Process(target=_run, args=([str(word) for word in words], *self._printed))
        self.process.start()

    def finish(self, seconds: float = 240) -> subprocess.CompletedProcess[str]:
        """Wait for its end, at most some seconds, and return its exit code and what it printed."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s"
        out, error = (path.read_text(encoding="utf-8") for path in self._printed)
        return subprocess.CompletedProcess(self.process.name, self.process.exitcode, out, error)


def _new_file(folder: Path) -> Path:
    descriptor, path = tempfile.mkstemp(dir=folder)
    os.close(descriptor)
    return Path(path)


def _run(words: list[str], out: Path, error: Path) -> None:
    for descriptor, path in enumerate((os.devnull, out, error)):
        os.dup2(os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY), descriptor)
    sys.argv = ["bench", *words]
    cli.main()
