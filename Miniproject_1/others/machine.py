"""What a measurement was made on."""

import os
import platform
from pathlib import Path

import torch

from ..model import bfloat16


def describe_machine(device: torch.device) -> str:
    """One line: processor or card, cores, PyTorch, and what the network trains in."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        cpuinfo = Path("/proc/cpuinfo")
        if cpuinfo.exists():
            models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
            name = models[0].partition(":")[2].strip() if models else name
    number = "bfloat16" if bfloat16(device) else "float32"
    return f"{device.type}: {name}, {os.cpu_count()} cores, PyTorch {torch.__version__}, trains in {number}"
