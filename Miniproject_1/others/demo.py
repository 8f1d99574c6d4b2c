"""The before/after picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..model import Model, atomic_write
from .course import COURSE_BLOCK, noisy_views
from .machine import load_model
from .metrics import psnr
from .photographs import centre_square, embedded_photographs, open_photograph

if TYPE_CHECKING:  # matplotlib is imported where figures are
    from matplotlib.figure import Figure

SHOWN = ("astronaut", "chelsea", "coffee", "motorcycle_left")
COLUMN = 3.35  # inches: the width of a column of the report


class Example(NamedTuple):
    """A picture before and after, each 3×H×W in [0, 255], and the PSNRs in dB."""

    name: str
    noisy: Tensor
    denoised: Tensor
    clean: Tensor
    before: float
    after: float


def demo(out: Path, *, seed: int, size: int | None = None) -> None:
    """Write a PNG of real photographs, noisy, denoised by `bestmodel.pth` and clean, with each PSNR.

    Each is a photograph's centre square under the course's noise: one random pixel of every 8×8. Prints where
    the PNG is.

    size: pixels a side, of more photographs, small as in the report; by default each has an eighth of its
        photograph's.
    """
    model = load_model()
    photographs = [path for path in embedded_photographs() if size or path.stem in SHOWN]
    figure = before_and_after(_examples(model, photographs, seed, size), width=COLUMN if size else 8.8)
    with atomic_write(out) as file:
        figure.savefig(file, format="png", dpi=600 if size else 150)
    print(out.resolve())


def _examples(model: Model, photographs: list[Path], seed: int, size: int | None) -> list[Example]:
    """The centre squares of photographs under the course's noise, and denoised."""
    generator, found = torch.Generator().manual_seed(seed), []
    for path in photographs:
        square = centre_square(open_photograph(path))
        if size:
            square = square.resize((size * COURSE_BLOCK, size * COURSE_BLOCK))
        noisy, _, clean = noisy_views(square, square.size[0] // COURSE_BLOCK, generator)
        denoised = model.predict(noisy.unsqueeze(0))[0]
        scores = (psnr(each.unsqueeze(0), clean.unsqueeze(0)).item() for each in (noisy, denoised))
        found.append(Example(path.stem, noisy, denoised, clean, *scores))
    return found


def before_and_after(shown: list[Example], *, width: float) -> Figure:
    """A figure of this many inches: a column a picture, named if it fits; rows noisy, denoised, clean."""
    from matplotlib.figure import Figure

    column = width / len(shown)
    figure = Figure(figsize=(width, 3.28 * column), layout="constrained")
    small, large = max(6, 4.5 * column), max(7, 6 * column)  # points
    axes = figure.subplots(3, len(shown), squeeze=False)
    for place, each in zip(axes.T, shown, strict=True):
        if column > 1:
            height, across = each.clean.shape[1:]
            place[0].set_title(f"{each.name.replace('_', ' ')}\n{across}×{height}", fontsize=small)
        for axis, image in zip(place, (each.noisy, each.denoised, each.clean), strict=True):
            axis.imshow(image.round().to(torch.uint8).permute(1, 2, 0))
            axis.set_xticks([])
            axis.set_yticks([])
        place[0].set_xlabel(f"{each.before:.1f} dB", fontsize=small)
        place[1].set_xlabel(f"{each.after:.1f} dB", fontsize=small)
    for axis, name in zip(axes[:, 0], ("noisy", "denoised", "clean"), strict=True):
        axis.set_ylabel(name, fontsize=large)
    return figure
