"""What a command needs before it can work: a device, a model, a place for what it makes."""

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from ..model import Model, atomic_write, bfloat16

PHOTOGRAPHS = Path(__file__).parents[1] / "photographs.pth"  # weights for full-size photographs


def new_model(device: str | None = None) -> Model:
    """An untrained model on this device. Raises `ValueError` for one that is none here."""
    try:
        return Model(device)
    except (AssertionError, RuntimeError) as error:  # PyTorch was built without it, or never heard of it
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {device}: cannot be used here: {reason}") from error


def load_model(weights: Path | None = None, device: str | None = None) -> Model:
    """The model in `weights`, by default `bestmodel.pth`'s. Raises as `new_model` and `Model.load` do."""
    model = new_model(device)
    if weights:
        model.load(weights)
    else:
        model.load_pretrained_model()
    return model


def refuse_unwritable(path: Path) -> None:
    """Raise `OSError` now, and not when the work is done, where no file could be put."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path.parent).close()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file's name")


def write_json(content: dict[str, Any], path: Path) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def describe_machine(device: torch.device) -> str:
    """One line: processor or card, cores that are used, PyTorch, whether bfloat16 is faster there, AMX."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        cpuinfo = Path("/proc/cpuinfo")
        if cpuinfo.exists():
            models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
            name = models[0].partition(":")[2].strip() if models else name
    cores, threads = os.cpu_count(), torch.get_num_threads()
    used = f"{threads} of {cores}" if device.type == "cpu" and threads != cores else cores
    has = "with" if bfloat16(device) else "without"
    # Which more than doubles its speed; the processor's name need not say it.
    amx = " (AMX)" if device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16") else ""
    return f"{device.type}: {name}, {used} cores, PyTorch {torch.__version__}, {has} bfloat16{amx}"
