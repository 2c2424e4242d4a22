"""Which device, how many threads, how much memory."""

from pathlib import Path

import torch

from bench.errors import UserError

CORES = torch.get_num_threads()
"""Cores for this process, as torch finds them when it starts: OMP_NUM_THREADS and a core binding count."""


def pick(name: str) -> torch.device:
    """Return the device called `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"--device {name}: not available here; use auto or cpu (bench doctor lists the devices)"
        ) from error
    return device


def name_of(device: torch.device) -> str:
    """Return the device's name for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def limit_threads(jobs: int) -> int:
    """Share the cores among parallel cells; return the threads of one."""
    threads = max(1, CORES // max(jobs, 1))
    torch.set_num_threads(threads)
    return threads


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: resets VmHWM
    except OSError:
        pass  # elsewhere the peak is that of the whole process


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak in MiB: GPU memory allocated, or the resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
