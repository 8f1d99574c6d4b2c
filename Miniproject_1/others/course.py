"""The course's `.pkl` files: read, checked, and made from photographs.

The course's noise: a photograph is cut into blocks, one block a pixel of the small picture. A noisy
picture takes one pixel of each block at random, uniformly, all three channels together; the clean
one takes the block's mean. So the noise is unbiased and independent from pixel to pixel, and its
variance is the texture that the small pixel covers.
"""

from __future__ import annotations

import random
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..model import atomic_write, is_whole, read
from .machine import refuse_unwritable
from .noises import gaussian, poisson, salt_and_pepper
from .photographs import (
    SMALLEST,
    at_least,
    centre_square,
    find_photographs,
    in_threads,
    open_photograph,
    pixels_of,
    random_square,
    reduced,
    split_photographs,
    tell_skipped,
)

if TYPE_CHECKING:  # Pillow is imported where photographs are: reading a .pkl needs torch alone
    from PIL.Image import Image

SIZE = 32  # pixels a side of the small pictures
COURSE_BLOCK = 8  # pixels of the photograph a side, for one pixel of the picture
COURSE_SIDE = SIZE * COURSE_BLOCK  # pixels to which the course reduced a photograph's shorter side


def load_images(path: Path, *, mmap: bool = False) -> tuple[Tensor, Tensor]:
    """Read one of the course's files: a tuple of two N×3×H×W `uint8` tensors with values in [0, 255].

    `train_data.pkl` holds (noisy_a, noisy_b), `val_data.pkl` (noisy, clean). With `mmap` the pictures are
    read only as they are looked at, and forgotten with the tensors. Nothing in the file is executed.
    Raises as `read` does, and `ValueError` for a file with other contents; all errors name it.
    """
    path = Path(path)
    content = read(path, mmap=mmap)
    expected = "expected a tuple of two N×3×H×W uint8 tensors of the same shape"
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise ValueError(f"{path}: holds a {type(content).__name__}; {expected}")
    for part in content:
        if not isinstance(part, Tensor) or part.is_nested:  # which has no one shape
            raise ValueError(f"{path}: holds a {type(part).__name__}; {expected}")
    first, second = content
    if not all(_holds_images(part) for part in content) or first.shape != second.shape:
        found = " and ".join(f"{tuple(part.shape)} {part.dtype}" for part in content)
        raise ValueError(f"{path}: holds {found}; {expected}")
    return first, second


def _holds_images(part: Tensor) -> bool:
    right = is_whole(part) and part.dtype == torch.uint8 and part.ndim == 4
    return right and part.shape[1] == 3 and part.numel() > 0


class Written(NamedTuple):
    """What `write_pairs` did: how many of what."""

    pairs: int
    train_photographs: int
    val: int
    val_photographs: int
    unreadable: int
    too_small: int
    duplicates: int

    def summary(self) -> str:
        return (
            f"{self.pairs:,} pairs from {self.train_photographs:,} photographs, {self.val:,} validation "
            f"images from {self.val_photographs:,} others; skipped: {self.unreadable} unreadable, "
            f"{self.too_small} with a side under {SMALLEST} pixels, {self.duplicates} duplicates"
        )


def pairs(photos: Path, out: Path, **options: Any) -> None:
    """`write_pairs` of the photographs in the folder `photos`, and print a summary.

    Raises `FileExistsError` where `out` has one of the files already: it may be the course's own.
    """
    parts = {"train": True, "val": options.get("val", 1) > 0, "oracle": True}  # an old oracle would go
    for name in (f"{part}_data.pkl" for part, written in parts.items() if written):
        if (out / name).exists():
            raise FileExistsError(f"OUT: {out / name} is there already: name another folder")
    skipped: Counter[str] = Counter()
    photographs = find_photographs(photos, skipped=skipped)
    tell_skipped(skipped)
    print(write_pairs(photographs, out, **options).summary())


def write_pairs(
    photographs: list[Path],
    out: Path,
    *,
    pairs: int = 50_000,
    val: int = 1_000,
    seed: int = 0,
    crop: int | None = None,
    shots: int = 1,
    other_noises: float = 0,
    oracle: bool = False,
) -> Written:
    """Write `out/train_data.pkl` (noisy pairs) and `out/val_data.pkl` (noisy, clean) from photographs.

    Both are N×3×32×32 `uint8` in the course's format, or N×3×`crop`×`crop`. The same photographs and seed
    give the same bytes. Photographs are split first: none gives both training and validation pictures, and
    a file that repeats another's bytes counts once. The first picture of each photograph is the course's
    own view (centre square, 256×256 where the photograph has that many pixels); further ones are
    other crops and scales of it. `val=0` takes every photograph for training and leaves
    `val_data.pkl` alone.

    crop: not whole photographs, but parts of `crop`×`crop` blocks of the course's 8×8 pixels, from the middle
        first and then from random places, once the photograph is reduced as the course did, to 32 blocks.
        Photographs that are smaller than that are left out.
    shots: noisy pictures whose mean, rounded, is the second picture of a pair. Against each of them in turn
        the squared error would ask for the same answer (Lehtinen et al. 2018, section 3.1, also pairs
        each input with several noisy targets), so this is only faster: a target less noisy by `shots`.
    other_noises: share of the pairs whose first picture has another noise than the course's: blocks of
        1×1 to 6×6 pixels, Gaussian (σ up to 60), Poisson (10 to 100 counts) or salt and pepper (up to
        20 %). The second picture always has the course's noise, whose mean is zero: an input may carry
        any noise, a target may not. So such pairs must not be swapped.
    oracle: also write `out/oracle_data.pkl`, (noisy_a, clean), to learn what clean targets would give.

    Files that cannot be read or whose shorter side is under 128 pixels are skipped and counted.
    Raises `ValueError` where too few photographs are left to split, `ModuleNotFoundError` without Pillow.
    """
    if find_spec("PIL") is None:
        raise ModuleNotFoundError("photographs need Pillow: python -m pip install pillow")
    if pairs < 1 or val < 0:
        raise ValueError(f"pairs must be 1 or more and val 0 or more, got {pairs} and {val}")
    if crop is not None and not 1 <= crop <= SIZE:
        raise ValueError(f"crop must be 1 ... {SIZE}, got {crop}")
    if shots < 1:
        raise ValueError(f"shots must be 1 or more, got {shots}")
    if not 0 <= other_noises <= 1:
        raise ValueError(f"other noises must be a share, 0 ... 1, got {other_noises}")
    refuse_unwritable(out / "train_data.pkl")
    train, held_out, skipped = split_photographs(photographs, val=val, seed=seed)
    if crop:
        train, held_out = (at_least(crop * COURSE_BLOCK, part) for part in (train, held_out))
        if not train or val > 0 == len(held_out):
            raise ValueError(
                f"crop {crop}: too few photographs of {crop * COURSE_BLOCK} pixels a side or more"
            )
    noisy, _, clean = _draw(held_out, val, f"{seed} val", "val_data.pkl", crop=crop)
    noisy_a, noisy_b, target = _draw(
        train, pairs, f"{seed} train", "train_data.pkl", crop=crop, shots=shots, other_noises=other_noises
    )
    # Only now, one right after the other: the old half of a split must not stand beside a new one.
    _save((noisy_a, noisy_b), out / "train_data.pkl")
    if val:
        _save((noisy, clean), out / "val_data.pkl")
    (out / "oracle_data.pkl").unlink(missing_ok=True)
    if oracle:
        _save((noisy_a, target), out / "oracle_data.pkl")
    return Written(pairs, min(pairs, len(train)), val, len(held_out), **skipped)


def noisy_views(
    photograph: Image, size: int, generator: torch.Generator, shots: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Two noisy pictures and the clean one, each 3×size×size `uint8`, of a square photograph.

    The second is the rounded mean of `shots` noisy ones.

    A block's side is the photograph's over `size`, a whole number or not: a point is drawn uniformly in
    the block and the pixel under it taken, so each pixel counts by the area that it shares with the
    block. The clean picture is the mean over those areas: what the noisy ones are on average.
    """
    pixels, side = pixels_of(photograph), photograph.size[0]
    cell, pixel = torch.arange(size).unsqueeze(1), torch.arange(side) * (size / side)
    point = torch.rand(1 + shots, 2, size, size, generator=generator, dtype=torch.float64)
    point += torch.stack([cell.expand(size, size), cell.T.expand(size, size)])
    row, column = (point * (side / size)).long().clamp_max(side - 1).unbind(1)
    noisy = pixels[:, row, column].transpose(0, 1)
    shared = (torch.minimum(cell + 1, pixel + size / side) - torch.maximum(cell, pixel)).clamp_min(0)
    clean = (shared @ pixels.float() @ shared.T).round().to(torch.uint8)
    return noisy[0], noisy[1:].float().mean(0).round().to(torch.uint8), clean


def _draw(
    photographs: list[Path],
    count: int,
    seed: str,
    label: str,
    *,
    crop: int | None,
    shots: int = 1,
    other_noises: float = 0,
) -> tuple[Tensor, ...]:
    """`count` pictures shared evenly among the photographs: (noisy_a, noisy_b, clean)."""
    size = crop or SIZE
    images = tuple(torch.empty(count, 3, size, size, dtype=torch.uint8) for _ in range(3))
    photographs = photographs[:count]

    def fill(first: int) -> None:
        # A generator of its own for each photograph: the result cannot depend on threads' timing.
        rng = random.Random(f"{seed} {first}")
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        photograph = open_photograph(photographs[first])
        if crop:
            photograph = reduced(photograph, COURSE_SIDE)
        for index in range(first, count, len(photographs)):
            side = crop * COURSE_BLOCK if crop else None
            view = centre_square(photograph, side) if index == first else random_square(photograph, rng, side)
            if not crop:
                view = reduced(view, COURSE_SIDE)
            noisy_a, noisy_b, clean = noisy_views(view, size, generator, shots)
            if other_noises and rng.random() < other_noises:
                noisy_a = _other_noise(view, clean, rng, generator)
            for image, made in zip(images, (noisy_a, noisy_b, clean), strict=True):
                image[index] = made

    for _ in in_threads(fill, range(len(photographs)), label):
        pass
    return images


def _other_noise(view: Image, clean: Tensor, rng: random.Random, generator: torch.Generator) -> Tensor:
    """The clean picture under one of the other noises, at any strength."""
    kind, strength, size = rng.randrange(4), rng.random(), clean.shape[-1]
    if kind == 0:
        side = size * rng.randint(1, 6)  # a smaller photograph is what smaller blocks are made of
        return noisy_views(view.resize((side, side)), size, generator)[0]
    if kind == 1:
        return gaussian(clean, 60 * strength, generator)
    if kind == 2:
        return poisson(clean, 10 ** (1 + strength), generator)
    return salt_and_pepper(clean, 0.2 * strength, generator, whole_pixels=rng.random() < 0.5)


def _save(content: tuple[Tensor, Tensor], path: Path) -> None:
    with atomic_write(path) as file:
        torch.save(content, file)
