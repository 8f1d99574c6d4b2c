"""The before/after picture."""

from pathlib import Path

import torch

from ..model import Model, atomic_write
from .pairs import COURSE_BLOCK, centre_square, embedded_photographs, noisy_views, open_photograph
from .psnr import psnr

SHOWN = ("astronaut", "chelsea", "coffee", "motorcycle_left")


def demo(out: Path, *, seed: int) -> None:
    """Write a PNG of real photographs, noisy, denoised by `bestmodel.pth` and clean, with each PSNR.

    Each is a photograph's centre square under the course's noise: one random pixel of every 8×8.
    """
    from matplotlib.figure import Figure

    model = Model()
    model.load_pretrained_model()
    generator = torch.Generator().manual_seed(seed)
    photographs = [path for path in embedded_photographs() if path.stem in SHOWN]
    figure = Figure(figsize=(2.2 * len(photographs), 7.2), layout="constrained", dpi=150)
    axes = figure.subplots(3, len(photographs))
    for column, path in zip(axes.T, photographs, strict=True):
        square = centre_square(open_photograph(path))
        size = square.size[0] // COURSE_BLOCK
        noisy, _, clean = noisy_views(square, size, generator)
        denoised = model.predict(noisy.unsqueeze(0))[0]
        column[0].set_title(f"{size}×{size} pixels", fontsize=10)
        for axis, image in zip(column, (noisy, denoised, clean), strict=True):
            axis.imshow(image.round().to(torch.uint8).permute(1, 2, 0))
            axis.set_xticks([])
            axis.set_yticks([])
            if image is not clean:
                score = psnr(image.unsqueeze(0), clean.unsqueeze(0)).item()
                axis.set_xlabel(f"{score:.1f} dB", fontsize=10)
    for axis, name in zip(axes[:, 0], ("noisy", "denoised", "clean"), strict=True):
        axis.set_ylabel(name, fontsize=13)
    with atomic_write(out) as file:
        figure.savefig(file, format="png")
