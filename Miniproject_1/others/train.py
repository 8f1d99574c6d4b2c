"""Long training: stopped, killed and gone on with; from more files than memory holds; on many devices."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ..model import LEARNING_RATE, Model, training
from .machine import describe_machine, new_model
from .pairs import load_images
from .psnr import psnr


class Shards(Sequence):
    """The pairs of several files in the course's format, each mapped into memory while it is used."""

    def __init__(self, data: Path) -> None:
        """data: one `.pkl` file, or a folder of `train_data*.pkl`. Raises as `load_images` does."""
        self.paths = sorted(data.glob("train_data*.pkl")) if data.is_dir() else [data]
        if not self.paths:
            raise FileNotFoundError(f"{data}: no train_data*.pkl in this folder")
        self.pairs = sum(len(noisy_a) for noisy_a, _ in self)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return load_images(self.paths[index], mmap=True)


def train(
    data: Path,
    out: Path,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    resume: bool = False,
    device: str | None = None,
) -> None:
    """Train from scratch on `data` and write the model to `out`, as `Model.save` does.

    data: as `Shards` takes it. Where it is a folder that holds `val_data.pkl`, that is scored on.
    resume: go on with `out`, which another call with the same arguments has left there.

    `out` is written at each epoch's end, and when SIGINT or SIGTERM stops the training, which then ends
    with `KeyboardInterrupt`; until the training is done it also holds what it takes to go on, and the
    end is the same, bit for bit on a CPU, as if nothing had happened. Under `torchrun`, every process
    takes its share of each batch and the first one writes.
    Raises `FileExistsError` where `out` is there and `resume` is not asked for, and `ValueError` where
    `out` is another training's.
    """
    with _processes() as rank:
        shards = Shards(data)
        val = data / "val_data.pkl"
        val_data = load_images(val) if data.is_dir() and val.exists() else None
        torch.manual_seed(seed)
        model = new_model(device)
        recipe = {"pairs": shards.pairs, "epochs": epochs, "seed": seed, "learning_rate": learning_rate}
        state = _saved_state(model, out, recipe, resume)
        if rank == 0:
            print(f"{describe_machine(model.device)}; {recipe}", flush=True)
        start = time.perf_counter()
        with _stop_signals() as stopped:
            run = training(model.network, shards, epochs, learning_rate=learning_rate, state=state)
            for epoch, loss, now in run:
                interrupted = _any(stopped)
                if rank == 0 and (interrupted or loss is not None):
                    more = {"training": now()} if interrupted or epoch < epochs else {}
                    model.save(out, recipe=recipe, **more)
                if interrupted:
                    raise KeyboardInterrupt
                if rank == 0 and loss is not None:
                    score = "" if val_data is None else f"  PSNR {_score(model, val_data):.3f} dB"
                    seconds = time.perf_counter() - start
                    print(f"epoch {epoch:3d}/{epochs}  loss {loss:.5f}{score}  {seconds:6.0f} s", flush=True)


def _saved_state(model: Model, out: Path, recipe: dict, resume: bool) -> dict | None:
    """What `out` holds to go on with, its weights taken by `model`; None where there is no such file."""
    if not out.exists():
        return None
    if not resume:
        raise FileExistsError(f"{out} is there already: resume goes on with it, another name starts anew")
    content = model.load(out)
    if content.get("recipe") != recipe:
        raise ValueError(f"{out}: made by {content.get('recipe')}, cannot go on with {recipe}")
    if "training" not in content:
        raise ValueError(f"{out}: this training is done")
    return content["training"]


@contextmanager
def _processes() -> Iterator[int]:
    """Join the processes that `torchrun` started, if it did; gives this one's rank."""
    if "RANK" not in os.environ:
        yield 0
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Within, the first SIGINT or SIGTERM is only noted in the list; a second one acts as ever."""
    noted: list[int] = []
    usual = {}

    def note(number: int, frame: object) -> None:
        noted.append(number)
        for each, handler in usual.items():
            signal.signal(each, handler)

    usual.update({each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)})
    try:
        yield noted
    finally:
        for each, handler in usual.items():
            signal.signal(each, handler)


def _any(stopped: list[int]) -> bool:
    """Whether any process was told to stop: all must leave the training at the same step."""
    if not dist.is_initialized():
        return bool(stopped)
    told = torch.tensor(float(bool(stopped)), device="cuda" if torch.cuda.is_available() else "cpu")
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told)


def _score(model: Model, val_data: tuple[Tensor, Tensor]) -> float:
    noisy, clean = val_data
    return psnr(model.predict(noisy), clean).mean().item()
