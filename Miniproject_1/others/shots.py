"""Photographs -> two noisy shots of each, and others with their clean pictures: to try `train` on."""

import random
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..model import atomic_write
from .noises import gaussian, poisson
from .photographs import embedded_photographs, find_photographs, open_photograph, split_photographs
from .pictures import write_pixels

SIDE = 192  # pixels of the pictures that photographs are cut into
MOST = 6  # of them from one photograph


def write_shots(out: Path, *, photos: Path | None, sigma: float, counts: float | None, seed: int) -> None:
    """Write two noisy shots of each picture to `out/first` and `out/second`, and `out/val_data.pkl`.

    The pictures are 192×192 pixels of photographs, six of one at most. A quarter of the photographs serves
    only for `val_data.pkl`, (noisy, clean) in the course's format, for `evaluate`.

    photos: folder of photographs; by default those that scikit-image brings.
    sigma: the noise's standard deviation in grey levels.
    counts: Poisson noise in its place, so many counts for a value of 255.
    Raises `FileExistsError` where `out` has any of them already, and `ValueError` where there are too few
    photographs of that size.
    """
    if there := next((name for name in ("first", "second", "val_data.pkl") if (out / name).exists()), None):
        raise FileExistsError(f"OUT: {out} has a {there} already: name another folder")
    if sigma < 0 or (counts is not None and counts <= 0):
        raise ValueError(f"expected a sigma of 0 or more and counts above 0, got {sigma} and {counts}")
    photographs = find_photographs(photos) if photos else embedded_photographs()
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)

    def noisy(clean: Tensor) -> Tensor:
        return poisson(clean, counts, generator) if counts else gaussian(clean, sigma, generator)

    def parts(paths: list[Path]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for path in paths:
            for part in _parts(path, rng):
                # Numbered, and photographs of one name in different folders apart.
                found[next(name for i in count() if (name := f"{path.stem}_{i}") not in found)] = part
        if not found:
            raise ValueError(f"PHOTOS: none of {len(paths)} photographs has {SIDE}×{SIDE} pixels")
        return found

    training, held_out, _ = split_photographs(photographs, val=max(1, len(photographs) // 4), seed=seed)
    clean = torch.stack(list(parts(held_out).values()))
    pictures = parts(training)
    for name, picture in pictures.items():
        for folder in ("first", "second"):
            write_pixels(noisy(picture), out / folder / f"{name}.png")
    with atomic_write(out / "val_data.pkl") as file:
        torch.save((noisy(clean), clean), file)
    print(f"{len(pictures)} pictures twice, and {len(clean)} of other photographs, in {out}")


def _parts(path: Path, rng: random.Random) -> list[Tensor]:
    """Squares of the photograph that do not overlap, 3×H×W `uint8`."""
    pixels = torch.from_numpy(np.array(open_photograph(path))).permute(2, 0, 1)
    parts = [
        pixels[:, top : top + SIDE, left : left + SIDE].clone()
        for top in range(0, pixels.shape[1] - SIDE + 1, SIDE)
        for left in range(0, pixels.shape[2] - SIDE + 1, SIDE)
    ]
    return rng.sample(parts, min(MOST, len(parts)))
