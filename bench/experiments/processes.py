"""Processes beside this one."""

import multiprocessing
from multiprocessing.context import BaseContext


def context() -> BaseContext:
    """Return the context of new processes, which inherit nothing: neither threads nor an open GPU."""
    return multiprocessing.get_context("spawn")
