"""The recipe behind `bestmodel.pth`: the training loop of `Model.train` on noisy pairs, and nothing else."""

import json
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch

from ..model import LEARNING_RATE, Model, ResidualBlock, UNet, atomic_write, training
from .machine import describe_machine, refuse_unwritable
from .pairs import load_images
from .psnr import psnr
from .study.runs import mean_psnr


def pretrain(
    data: Path,
    out: Path,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    widths: Sequence[int],
    blocks: int,
    start: Path | None = None,
    mean: bool = False,
) -> None:
    """Train a `UNet(widths, blocks)` on `data/train_data.pkl` and write its `state_dict` to `out`.

    From scratch, or from the weights in `start`, to which blocks may be added. With `mean` the result is the
    mean of the first weights and the last, which can be better than both (Wortsman et al. 2022,
    arXiv 2203.05482, average fine-tuned weights). The pictures of a pair are not swapped, so the first ones
    may carry any noise. `data/val_data.pkl` is only measured on, after each epoch. The weights so far are
    kept in `out` + '.part', so that `out` is only ever a finished run's. Prints all it takes to run it again,
    and at the end what the report tells of it, as JSON.
    Raises `ValueError` where `start` holds no such network with as many blocks or fewer, and for a `mean`
    without `start`.
    """
    if mean and start is None:
        raise ValueError("--mean: of the weights in --start and the last ones, but --start was not given")
    noisy_a, noisy_b = load_images(data / "train_data.pkl")
    noisy, clean = load_images(data / "val_data.pkl")
    refuse_unwritable(out)
    part = out.with_name(out.name + ".part")
    part.unlink(missing_ok=True)  # an earlier run's, which was stopped
    torch.manual_seed(seed)
    model = Model()
    network = UNet(widths, blocks)
    if start:
        model.load(start)
        _grow(model.network, network, start)
    model.network = network.to(model.device)
    first = deepcopy(network.state_dict())
    parameters = sum(each.numel() for each in model.network.parameters())
    print(describe_machine(model.device))
    print(
        f"seed {seed}, learning rate {learning_rate:g} from {start.name if start else 'scratch'}, "
        f"{epochs} epochs of {len(noisy_a):,} noisy pairs, "
        f"widths {'-'.join(map(str, widths))}, blocks {blocks}, {parameters:,} parameters"
    )
    before = psnr(noisy, clean).mean()
    print(f"{len(noisy):,} validation images; the noisy input has {before:.3f} dB", flush=True)
    begin = time.perf_counter()

    pairs = (noisy_a, noisy_b)
    for epoch, loss, _ in training(model.network, [pairs], epochs, learning_rate=learning_rate, swap=False):
        if loss is not None:
            seconds = time.perf_counter() - begin
            if mean and epoch == epochs:
                for name, weight in network.state_dict().items():
                    weight.lerp_(first[name], 0.5)
            with atomic_write(part) as file:
                torch.save(model.network.state_dict(), file)
            score = psnr(model.predict(noisy), clean).mean()
            progress = f"epoch {epoch:3d}/{epochs}  loss {loss:.5f}  PSNR {score:.3f} dB"
            print(f"{progress}  {seconds:6.0f} s", flush=True)
    part.replace(out)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    told = {"parameters": parameters, "pairs": len(noisy_a), "epochs": epochs, "seconds": round(seconds)}
    print(json.dumps(told | {"psnr": round(mean_psnr(model.network, noisy, clean), 4)}))


def _grow(small: UNet, network: UNet, start: Path) -> None:
    """Fill `network` from a smaller one, that of `start`; blocks that it lacks pass on what they get."""
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            torch.nn.init.zeros_(module.conv2.weight)
    weights, own = small.state_dict(), network.state_dict()
    if any(name not in own or value.shape != own[name].shape for name, value in weights.items()):
        raise ValueError(f"{start} does not hold the weights of such a network with as many blocks or fewer")
    network.load_state_dict(weights, strict=False)
