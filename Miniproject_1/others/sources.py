"""What is trained on: files of pairs in the course's format, or noisy shots of each scene as picture files.

What reads pictures is imported where they are read: training on files of pairs needs torch alone.
"""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .course import load_images

PATCH = 64  # pixels a side of the patches that pictures are cut into
LEAST, MOST = 1_000, 20_000  # patches
HELD_OUT, MOST_HELD_OUT = 0.1, 20  # of the scenes: a tenth, but no more than so many
SCORED = 512  # pixels a side of the part of a held-out picture that is scored, at most, of two shots
SHIFT = 0.5  # pixels between two shots from which on they count as misaligned
UNLIKE = 0.05  # by how much more they differ when moved the other way, where a shift is real
BLOCK, BLOCKS = 8, 16  # pixels a side over which noise averages out, and how many such say enough


class Shards(Sequence):
    """The pairs of several files in the course's format, each mapped into memory while it is used.

    held_out: (noisy_a, noisy_b), N×3×H×W, where asked for: the last fiftieth of the last file, 500 pairs at
        most.
    pairs: how many others there are. swap: the two pictures of a pair may change places.
    """

    swap = True

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
    """Patches of pictures, several noisy shots of each scene: one shard for `Training`.

    From each picture as many as its area deserves, in random places. A picture that is smaller than a patch
    is mirrored at its right and lower edges; where all are, patches are as large as the largest can give.
    Of two shots, one is to be guessed from the other. Of more, from each one the mean of all others: that
    asks for the same as each of them and is less noisy.

    held_out: the shots, each 1×3×H×W, of the scenes that are kept back, a tenth of them.
    misaligned: name -> (rows, columns) by which a shot, the first such one, lies lower and further right than
        the scene's first, where either is half a pixel or more. Such scenes are trained on, but none is
        scored on.
    swap: whether the two pictures of a pair may change places. Not with a mean: what is denoised later is as
        noisy as a single shot.
    shots: how many each scene has. pairs: how many patches there are. skipped: files that are no pictures.
    """

    def __init__(self, *folders: Path, seed: int) -> None:
        """Read the folders, as `match` does. Raises `ValueError` where a scene has a shot twice or shots of
        different sizes, or a single folder those of different scenes, and as `read_picture` does."""
        from .pictures import size_of

        self.skipped: Counter[str] = Counter()
        scenes = match(*folders, skipped=self.skipped)
        self.shots = {name: len(paths) for name, paths in scenes.items()}
        self.swap = set(self.shots.values()) == {2}
        # Which shots are of one scene was then guessed from their names.
        self.guessed = any(len({path.stem for path in paths}) > 1 for paths in scenes.values())
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        number = min(round(HELD_OUT * len(scenes)), MOST_HELD_OUT) or int(len(scenes) > 1)
        kept_back = set(rng.sample(sorted(scenes), number))
        self.held_out: list[tuple[Tensor, ...]] = []
        self.misaligned: dict[str, tuple[float, float]] = {}
        # Sizes first, from the headers: so that no more than one scene's pictures are in memory at once.
        sizes = {name: size_of(paths[0]) for name, paths in scenes.items() if name not in kept_back}
        side = min(PATCH, max(min(size) for size in sizes.values()))
        share = {
            name: width * height / side**2 * self.shots[name] / 2 for name, (width, height) in sizes.items()
        }
        # Twice as many patches as cover everything, but no fewer and no more than these.
        times = min(max(2, LEAST / sum(share.values())), MOST / sum(share.values()))
        patches = []
        for name, paths in scenes.items():
            if name in kept_back:
                self._keep_back(name, paths)
                continue
            number = math.ceil(times * share[name] / (1 if self.swap else len(paths)))
            for a, b in self._pairs(name, paths):
                a, b = mirrored(a, side), mirrored(b, side)
                patches += [cut(a, b, side, generator) for _ in range(number)]
        first_shots, second_shots = zip(*patches, strict=True)
        # Where some are of eight bits and others deeper, all become float32.
        self.patches = torch.cat(first_shots), torch.cat(second_shots)
        self.pairs = len(patches)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # no slices
        return (self.patches,)[index]

    def _keep_back(self, name: str, paths: Sequence[Path]) -> None:
        side = int(SCORED * math.sqrt(2 / len(paths)))  # to score takes as long, however many there are
        shots = tuple(_centre(shot.float(), side) for shot in self._read(name, paths))
        if name not in self.misaligned:
            self.held_out.append(shots)

    def _pairs(self, name: str, paths: Sequence[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole pictures that patches are cut from: a shot and what is to be guessed from it."""
        if self.swap:
            a, b = self._read(name, paths)
            yield a, b
            return
        total, (first, bounds) = sum(shot.float() for shot in self._read(name, paths)), _load(paths[0])
        for number, path in enumerate(paths):  # read again: however many there are, memory holds a few
            shot = _load(path, bounds)[0] if number else first
            yield shot, (total - shot) / (len(paths) - 1)

    def _read(self, name: str, paths: Sequence[Path]) -> Iterator[Tensor]:
        """A scene's shots, one after the other, checked."""
        (first, bounds), seen = _load(paths[0]), dict[int, Path]()
        for number, path in enumerate(paths):
            shot = _load(path, bounds)[0] if number else first
            if shot.shape != first.shape:
                shapes = " and ".join(f"{each.shape[3]}×{each.shape[2]}" for each in (first, shot))
                raise ValueError(f"{paths[0]} and {path}: {shapes} pixels, expected the same")
            content = hash(shot.numpy().tobytes())
            if content in seen and shot.min() < shot.max():  # black twice is possible, noise twice is not
                raise ValueError(f"{seen[content]} and {path}: the same picture, expected two shots")
            seen[content] = path
            if self.guessed and differ(first.float(), shot.float()):
                raise ValueError(f"{paths[0]} and {path}: different scenes, expected shots of one")
            if number:
                shift = shift_between(first.float(), shot.float())
                if max(map(abs, shift)) >= SHIFT:
                    self.misaligned.setdefault(name, shift)
            yield shot


def _load(path: Path, bounds: Any = None) -> tuple[Tensor, Any]:
    """(1×3×H×W in [0, 255], `uint8` where the file has eight bits, else `float32`; what 0 and 255 stand for).

    All shots of a scene must have the same bounds, or they would differ by more than noise.
    """
    from .pictures import read_picture

    picture = read_picture(path)
    values = picture.tensor(bounds=bounds)
    bounds = picture.bounds if bounds is None else bounds
    return values.to(torch.uint8) if picture.pixels.itemsize == 1 else values, bounds


def match(*folders: Path, skipped: Counter[str] | None = None) -> dict[str, tuple[Path, ...]]:
    """The shots of each scene, by its name: two or more. skipped: as `find_photographs` takes it.

    Of several folders, each holds a shot of a scene under the scene's name, suffixes apart; or, where such
    names do not match, shots named x_1, x_2. Of a single folder, each folder in it is a scene, or it holds
    shots named x_1, x_2. Raises `ValueError` where a scene has one shot only, or a folder holds no picture.
    """
    from .pictures import FORMATS, by_name, find_photographs

    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder of pictures")
    if len(folders) == 1 and not find_photographs(folders[0], FORMATS):
        raise FileNotFoundError(
            f"{folders[0]}: no train_data.pkl, nor any train_data*.pkl, nor a picture, in this folder"
        )
    named = [by_name(folder, skipped) for folder in folders]
    found = [(name, path) for each in named for name, path in each.items()]
    keys: list[Callable[[str], str]] = [str, _unnumbered] if len(folders) > 1 else [_unnumbered, _parent]
    for key in keys:
        scenes = defaultdict(list)
        for name, path in found:
            scenes[key(name)].append(path)
        # Of several folders, each gives one shot of a scene; of a single one, those beside folders are none.
        most = len(folders) if len(folders) > 1 else len(found)
        if "" not in scenes and all(2 <= len(paths) <= most for paths in scenes.values()):
            return {name: tuple(paths) for name, paths in scenes.items()}
    raise ValueError(_unmatched(folders, named))


def _unnumbered(name: str) -> str:
    """x of x_1."""
    return re.sub(r"[_-]\d+$", "", name)


def _parent(name: str) -> str:
    """The folder that it is in; empty where that is the one that was named."""
    return name.rpartition("/")[0]


def _unmatched(folders: Sequence[Path], named: list[dict[str, Path]]) -> str:
    """What is missing, in words."""
    if len(folders) == 1:
        names = sorted(named[0])
        few = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        return f"{folders[0]} holds {few}: expected a folder for each scene, or its shots named x_1, x_2"
    times = Counter(name for each in named for name in each)
    for folder, each in zip(folders, named, strict=True):
        if alone := sorted(name for name in each if times[name] == 1):
            few = ", ".join(alone[:3]) + (" …" if len(alone) > 3 else "")
            others = " nor ".join(str(other) for other in folders if other is not folder)
            break
    return f"{others} has no {few}: each picture needs a second shot of the same name"


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two pictures, 1×3×H×W, show different scenes.

    What shots of one scene differ by is noise, which averages out in blocks; or the light, and then bright
    and dark lie in the same places.
    """
    if min(a.shape[2:]) < BLOCK or a[0, 0].numel() < BLOCKS * BLOCK**2:
        return False
    one, other = (_centre(each).mean(1, keepdim=True) for each in (a, b))
    coarse = [F.avg_pool2d(each, BLOCK).flatten() for each in (one, other)]
    stays = (coarse[0] - coarse[1]).var() > 0.25 * (one - other).var()  # a 64th would, of noise
    return bool(stays and torch.corrcoef(torch.stack(coarse))[0, 1] < 0.5)


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


def _centre(images: Tensor, side: int = SCORED) -> Tensor:
    top, left = (max(0, (length - side) // 2) for length in images.shape[2:])
    return images[..., top : top + side, left : left + side].clone()
