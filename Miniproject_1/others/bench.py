"""Speed and memory, measured on this machine."""

import subprocess
import sys
import time
from pathlib import Path

import torch

from ..model import Model
from .machine import describe_machine
from .pairs import load_images

EPOCH = 50_000  # pairs in the course's epoch, for which it allows 300 seconds
LARGE = ((50_000, 3, 32, 32), (1, 3, 4096, 4096))  # inputs whose prediction's memory is measured
TIMED = 6_400  # pairs and images that are timed: enough for the first steps not to matter

# A process of its own for each shape: a process remembers its peak for as long as it lives.
PREDICT_AND_WEIGH = """
import resource, sys, torch
from Miniproject_1 import Model
model = Model()
model.load_pretrained_model()
model.predict(torch.randint(0, 256, {shape}, dtype=torch.uint8))
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(kilobytes / (2**20 if sys.platform == "linux" else 2**30))
"""


def bench(data: Path) -> None:
    """Print training and prediction speed on `data`'s pictures, and peak memory on large inputs."""
    noisy_a, noisy_b = (part[:TIMED] for part in load_images(data / "train_data.pkl"))
    model = Model()
    print(describe_machine(model.device), flush=True)

    model.train(noisy_a[:640], noisy_b[:640], 1)  # the first steps choose kernels and fill caches
    seconds = _seconds(lambda: model.train(noisy_a, noisy_b, 1))
    rate = len(noisy_a) / seconds
    print(
        f"training    {rate:8.0f} pairs/s: an epoch of {EPOCH:,} takes {EPOCH / rate:.0f} s "
        "(the course allows 300)",
        flush=True,
    )
    images = noisy_a.repeat(-(-1000 // len(noisy_a)), 1, 1, 1)[:1000]
    model.load_pretrained_model()
    model.predict(images[:100])
    seconds = _seconds(lambda: model.predict(images))
    print(
        f"prediction  {1000 / seconds:8.0f} images/s: 1,000 of 32×32 take {seconds:.1f} s",
        flush=True,
    )
    for shape in LARGE:
        start = time.perf_counter()
        child = subprocess.run(
            [sys.executable, "-c", PREDICT_AND_WEIGH.format(shape=shape)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        shape_text = "×".join(str(size) for size in shape)
        print(
            f"memory      {float(child.stdout):8.2f} GiB at most to predict {shape_text}, "
            f"in {time.perf_counter() - start:.0f} s with start-up",
            flush=True,
        )


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
