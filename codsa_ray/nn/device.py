"""Device: which numbers a machine multiplies fast, and sums that do not depend on its cores; knows no network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def gpu_dtype(device: str) -> torch.dtype:
    """bfloat16 on GPUs that multiply it natively, else float32; whoever uses it writes it down, so that later draws use the same.

    Not on CPUs, native or not: torch's attention takes thirty times as long to differentiate in bfloat16 there (2.13, AMX).
    """
    return torch.bfloat16 if device.startswith("cuda") and torch.cuda.is_bf16_supported() else torch.float32


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: with more, sums may be cut differently and the bytes depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
