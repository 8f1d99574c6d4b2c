"""The recipe behind `bestmodel.pth`: the training loop of `Model.train` on noisy pairs, and nothing else."""

import time
from pathlib import Path

import torch

from ..model import LEARNING_RATE, Model, atomic_write, read, training
from .machine import describe_machine
from .pairs import load_images
from .psnr import psnr


def pretrain(
    data: Path,
    out: Path,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    start: Path | None = None,
) -> None:
    """Train on `data/train_data.pkl` and write the weights to `out`, a `state_dict`.

    From scratch, or from the weights in `start`. The pictures of a pair are not swapped, so the first
    ones may carry any noise. `data/val_data.pkl` is only measured on, after each epoch. The weights so
    far are kept in `out` + '.part', so that `out` is only ever a finished run's. Prints all it takes
    to run it again.
    """
    noisy_a, noisy_b = load_images(data / "train_data.pkl")
    noisy, clean = load_images(data / "val_data.pkl")
    part = out.with_name(out.name + ".part")
    torch.manual_seed(seed)
    model = Model()
    if start:
        model.network.load_state_dict(read(start))
    parameters = sum(each.numel() for each in model.network.parameters())
    print(describe_machine(model.device))
    print(
        f"seed {seed}, learning rate {learning_rate:g} from {start.name if start else 'scratch'}, "
        f"{epochs} epochs of {len(noisy_a):,} noisy pairs, {parameters:,} parameters"
    )
    before = psnr(noisy, clean).mean()
    print(f"{len(noisy):,} validation images; the noisy input has {before:.3f} dB", flush=True)
    begin = time.perf_counter()

    pairs = (noisy_a, noisy_b)
    for epoch, loss, _ in training(model.network, [pairs], epochs, learning_rate=learning_rate, swap=False):
        if loss is not None:
            seconds = time.perf_counter() - begin
            with atomic_write(part) as file:
                torch.save(model.network.state_dict(), file)
            score = psnr(model.predict(noisy), clean).mean()
            progress = f"epoch {epoch:3d}/{epochs}  loss {loss:.5f}  PSNR {score:.3f} dB"
            print(f"{progress}  {seconds:6.0f} s", flush=True)
    part.replace(out)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
