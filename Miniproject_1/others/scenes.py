"""Two noisy shots of each scene, in two folders: pairs to train on and to score on."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .pictures import find_pictures, read_picture

PATCH = 64  # pixels a side of the patches that pictures are cut into
LEAST, MOST = 1_000, 20_000  # patches
HELD_OUT = 0.1  # of the scenes
SCORED = 512  # pixels a side of the part of a held-out picture that is scored, at most
SHIFT = 0.5  # pixels between two shots from which on they count as misaligned


class Scenes(Sequence):
    """Patches of the pictures that two folders share by name: one shard for `training`.

    held_out: (noisy_a, noisy_b), each 1×3×H×W, of the scenes that are kept back, a tenth of them.
    misaligned: name -> (rows, columns) by which the second shot is shifted against the first, where that is
        half a pixel or more.
    pairs: how many patches there are.
    """

    def __init__(self, first: Path, second: Path, seed: int) -> None:
        """Read the folders. Raises `ValueError` where a picture has no twin or one of another size, and as
        `read_picture` does."""
        names = match(first, second)
        rng = random.Random(seed)
        kept_back = set(rng.sample(sorted(names), round(HELD_OUT * len(names)) or int(len(names) > 1)))
        self.held_out: list[tuple[Tensor, Tensor]] = []
        self.misaligned: dict[str, tuple[float, float]] = {}
        training = []
        for name, paths in names.items():
            a, b = (read_picture(path).tensor() for path in paths)
            if a.shape != b.shape:
                sizes = " and ".join(f"{each.shape[3]}×{each.shape[2]}" for each in (a, b))
                raise ValueError(f"{paths[0]} and {paths[1]}: {sizes} pixels, expected the same")
            shift = shift_between(a, b)
            if max(map(abs, shift)) >= SHIFT:
                self.misaligned[name] = shift
            if name in kept_back:
                self.held_out.append((_centre(a), _centre(b)))
            else:
                training.append((a, b))
        self.patches = cut(training, torch.Generator().manual_seed(seed))
        self.pairs = len(self.patches[0])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return (self.patches,)[index]


def match(first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    """The pictures of two folders by name, suffixes apart. Raises `ValueError` where one has no twin."""
    folders = []
    for folder in (first, second):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder of pictures")
        found = find_pictures(folder)
        named = {str(path.relative_to(folder).with_suffix("")): path for path in found}
        if not found or len(named) < len(found):
            raise ValueError(f"{folder}: {'two pictures of one name' if found else 'holds no picture'}")
        folders.append(named)
    for one, other, folder in ((*folders, second), (*folders[::-1], first)):
        if alone := sorted(one.keys() - other.keys()):
            few = ", ".join(alone[:3]) + (" …" if len(alone) > 3 else "")
            raise ValueError(f"{folder} has no {few}: each picture needs a second shot of the same name")
    return {name: (path, folders[1][name]) for name, path in folders[0].items()}


def shift_between(a: Tensor, b: Tensor) -> tuple[float, float]:
    """By how many (rows, columns) b must be moved to lie on a, by the peak of their cross-correlation."""
    from skimage.registration import phase_cross_correlation

    grey = (np.asarray(_centre(each)[0].mean(0)) for each in (a, b))
    one, other = (each - each.mean() for each in grey)
    # Not divided by the spectrum's magnitude: that would count pure noise as much as the scene.
    shift = phase_cross_correlation(one, other, upsample_factor=10, normalization=None)[0]
    return float(shift[0]), float(shift[1])


def cut(pictures: list[tuple[Tensor, Tensor]], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random patches, the same places in both shots, from each picture as many as its area deserves.

    Twice as many as cover everything, but `LEAST` or more and `MOST` or fewer. Where a picture is smaller
    than `PATCH`, all patches are as small as it is.
    """
    side = min(PATCH, *(min(a.shape[2:]) for a, _ in pictures))
    share = [a.shape[2] * a.shape[3] / side**2 for a, _ in pictures]
    times = min(max(2, LEAST / sum(share)), MOST / sum(share))
    patches: list[tuple[Tensor, Tensor]] = []
    for (a, b), size in zip(pictures, share, strict=True):
        for _ in range(math.ceil(times * size)):
            top, left = (
                int(torch.randint(length - side + 1, (), generator=generator)) for length in a.shape[2:]
            )
            place = (..., slice(top, top + side), slice(left, left + side))
            patches.append((a[place], b[place]))
    first, second = (torch.cat(each) for each in zip(*patches, strict=True))
    return first, second


def _centre(images: Tensor) -> Tensor:
    top, left = (max(0, (length - SCORED) // 2) for length in images.shape[2:])
    return images[..., top : top + SCORED, left : left + SCORED].clone()
