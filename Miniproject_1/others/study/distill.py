"""Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531): a larger network's answers as targets."""

from pathlib import Path

import torch

from ...model import Model, Training, UNet, atomic_write
from ..course import load_images

BLOCKS = 10  # of the teacher's on each level and side
LEARNING_RATE = 2e-4  # to fine-tune it
SHARD = 10_000  # pairs a file


def distill(data: Path, out: Path, *, teacher: Path, tune: int, device: str | None = None) -> None:
    """Write `out/train_data_NAME_*.pkl`: the noisy pictures of `data`, each with the teacher's answer to it.

    data: a folder NAME with a `train_data.pkl` of (noisy, mean of other shots).
    teacher: weights of a `UNet` of ten blocks. It too has learnt from noisy pictures alone.
    tune: fine-tune it first, on so many of `data`'s pairs, and write `out/teacher.pth`.

    Raises as `load_images` and `Model.load` do.
    """
    torch.manual_seed(0)
    noisy, target = load_images(data / "train_data.pkl")
    model = Model(device)
    model.network = UNet(blocks=BLOCKS).to(model.device, memory_format=torch.channels_last)
    model.load(teacher)
    if model.network.shape["blocks"] != BLOCKS:
        raise ValueError(f"{teacher} does not hold the weights of a network of {BLOCKS} blocks")
    if tune:
        pairs = noisy[:tune], target[:tune]
        for _ in Training(model.network, [pairs], 1, learning_rate=LEARNING_RATE, swap=False):
            pass
        model.save(out / "teacher.pth")
    for first in range(0, len(noisy), SHARD):
        some = noisy[first : first + SHARD]
        answers = model.predict(some).round().to(torch.uint8)
        with atomic_write(out / f"train_data_{data.name}_{first:06d}.pkl") as file:
            torch.save((some.clone(), answers), file)
