"""What is trained on: files of pairs in the course's format, or two noisy shots of each scene in two folders.

What reads pictures is imported where they are read: training on files of pairs needs torch alone.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .course import load_images

PATCH = 64  # pixels a side of the patches that pictures are cut into
LEAST, MOST = 1_000, 20_000  # patches
HELD_OUT, MOST_HELD_OUT = 0.1, 20  # of the scenes: a tenth, but no more than so many
SCORED = 512  # pixels a side of the part of a held-out picture that is scored, at most
SHIFT = 0.5  # pixels between two shots from which on they count as misaligned
UNLIKE = 0.05  # by how much more they differ when moved the other way, where a shift is real


class Shards(Sequence):
    """The pairs of several files in the course's format, each mapped into memory while it is used.

    held_out: (noisy_a, noisy_b), N×3×H×W, where asked for: the last fiftieth of the last file, 500 pairs at
        most.
    pairs: how many others there are.
    """

    def __init__(self, data: Path, *, keep_back: bool = True) -> None:
        """data: one `.pkl` file, or a folder of `train_data*.pkl`. Raises as `load_images` does."""
        self.paths = sorted(data.glob("train_data*.pkl")) if data.is_dir() else [data]
        if not self.paths:
            raise FileNotFoundError(f"{data}: no train_data.pkl, nor any train_data*.pkl, in this folder")
        noisy_a, noisy_b = load_images(self.paths[-1], mmap=True)
        self.kept_back = min(500, len(noisy_a) // 50) if keep_back else 0
        kept_back = slice(len(noisy_a) - self.kept_back, None)
        self.held_out = [(noisy_a[kept_back].float(), noisy_b[kept_back].float())] if self.kept_back else []
        self.pairs = sum(len(noisy_a) for noisy_a, _ in self)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # no slices
        noisy_a, noisy_b = load_images(self.paths[index], mmap=True)
        end = len(noisy_a) - (self.kept_back if index == len(self) - 1 else 0)
        return noisy_a[:end], noisy_b[:end]


class Scenes(Sequence):
    """Patches of the pictures that two folders share by name: one shard for `Training`.

    From each picture as many as its area deserves, in random places. A picture that is smaller than a patch
    is mirrored at its right and lower edges; where all are, patches are as large as the largest can give.

    held_out: (noisy_a, noisy_b), each 1×3×H×W, of the scenes that are kept back, a tenth of them.
    misaligned: name -> (rows, columns) by which the second shot lies lower and further right than the first,
        where either is half a pixel or more. Such scenes are trained on, but none is scored on.
    pairs: how many patches there are.
    """

    def __init__(self, first: Path, second: Path, seed: int) -> None:
        """Read the folders. Raises `ValueError` where a picture has no twin, or as its twin the same picture
        or one of another size, and as `read_picture` does."""
        from .pictures import read_picture, size_of

        names = match(first, second)
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        number = min(round(HELD_OUT * len(names)), MOST_HELD_OUT) or int(len(names) > 1)
        kept_back = set(rng.sample(sorted(names), number))
        self.held_out: list[tuple[Tensor, Tensor]] = []
        self.misaligned: dict[str, tuple[float, float]] = {}
        # Sizes first, from the headers: so that no more than one scene's pictures are in memory at once.
        sizes = {name: size_of(paths[0]) for name, paths in names.items() if name not in kept_back}
        side = min(PATCH, max(min(size) for size in sizes.values()))
        share = {name: width * height / side**2 for name, (width, height) in sizes.items()}
        # Twice as many patches as cover everything, but no fewer and no more than these.
        times = min(max(2, LEAST / sum(share.values())), MOST / sum(share.values()))
        patches = []
        for name, paths in names.items():
            pictures = [read_picture(path) for path in paths]
            a, b = (picture.tensor() for picture in pictures)
            if a.shape != b.shape:
                shapes = " and ".join(f"{each.shape[3]}×{each.shape[2]}" for each in (a, b))
                raise ValueError(f"{paths[0]} and {paths[1]}: {shapes} pixels, expected the same")
            if torch.equal(a, b) and a.min() < a.max():  # black twice is possible, noise twice is not
                raise ValueError(f"{paths[0]} and {paths[1]}: the same picture, expected two shots")
            shift = shift_between(a, b)
            if max(map(abs, shift)) >= SHIFT:
                self.misaligned[name] = shift
            if name in kept_back and name not in self.misaligned:
                self.held_out.append((_centre(a), _centre(b)))
            if name not in kept_back:
                a, b = mirrored(a, side), mirrored(b, side)
                # Eight bits are kept as such; beside deeper ones torch.cat makes them float32.
                a, b = (
                    x.to(torch.uint8) if p.pixels.itemsize == 1 else x
                    for x, p in zip((a, b), pictures, strict=True)
                )
                patches += [cut(a, b, side, generator) for _ in range(math.ceil(times * share[name]))]
        first_shots, second_shots = zip(*patches, strict=True)
        self.patches = torch.cat(first_shots), torch.cat(second_shots)
        self.pairs = len(patches)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # no slices
        return (self.patches,)[index]


def match(first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    """The pictures of two folders by name, suffixes apart. Raises `ValueError` where one has no twin."""
    from .pictures import by_name

    folders = []
    for folder in (first, second):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder of pictures")
        folders.append(by_name(folder))
    for one, other, folder in ((0, 1, second), (1, 0, first)):
        if alone := sorted(folders[one].keys() - folders[other].keys()):
            few = ", ".join(alone[:3]) + (" …" if len(alone) > 3 else "")
            raise ValueError(f"{folder} has no {few}: each picture needs a second shot of the same name")
    return {name: (path, folders[1][name]) for name, path in folders[0].items()}


def shift_between(a: Tensor, b: Tensor) -> tuple[float, float]:
    """By how many (rows, columns) b is moved against a: where their cross-correlation has its peak.

    (0, 0) where that says nothing: in a sky or a blurred scene noise alone decides where the peak is. A real
    shift lays b on a, while as much the other way takes it further off.
    """
    import numpy as np
    from skimage.registration import phase_cross_correlation

    grey = (np.asarray(_centre(each)[0].mean(0)) for each in (a, b))
    one, other = (each - each.mean() for each in grey)
    if not one.any() or not other.any():
        return 0.0, 0.0  # nothing to see by which it could be shifted
    # Not divided by the spectrum's magnitude: that would count pure noise as much as the scene.
    found = -phase_cross_correlation(one, other, upsample_factor=10, normalization=None)[0]
    step = np.copysign(np.floor(np.abs(found) + 0.5), found).astype(int)
    inner = tuple(slice(abs(by), length - abs(by)) for by, length in zip(step, one.shape, strict=True))
    there, away = (np.square(one - np.roll(other, -way * step, (0, 1)))[inner] for way in (1, -1))
    if not there.size or away.mean() < (1 + UNLIKE + 8 / math.sqrt(there.size)) * there.mean():
        return 0.0, 0.0
    return float(found[0]), float(found[1])


def mirrored(images: Tensor, side: int) -> Tensor:
    """Continued on the right and below by its mirror image, to at least this many pixels a side."""
    import numpy as np

    missing = [(0, max(0, side - length)) for length in images.shape[2:]]
    return torch.from_numpy(np.pad(images.numpy(), [(0, 0), (0, 0), *missing], "symmetric"))


def cut(a: Tensor, b: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A patch of side×side pixels from a random place, the same in both."""
    top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in a.shape[2:])
    place = (..., slice(top, top + side), slice(left, left + side))
    return a[place].clone(), b[place].clone()  # a view would keep the whole picture in memory


def _centre(images: Tensor) -> Tensor:
    top, left = (max(0, (length - SCORED) // 2) for length in images.shape[2:])
    return images[..., top : top + SCORED, left : left + SCORED].clone()
