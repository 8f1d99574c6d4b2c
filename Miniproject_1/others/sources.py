"""What is trained on: files of pairs in the course's format, or noisy shots of each scene as picture files.

What reads pictures is imported where they are read: training on files of pairs needs torch alone.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .course import load_images
from .metrics import BLOCK

if TYPE_CHECKING:
    from .pictures import PictureFile

    Shot = tuple[PictureFile, int]  # a plane of an opened file

PATCH = 64  # pixels a side of the patches that pictures are cut into
LEAST, MOST = 1_000, 20_000  # patches
HELD_OUT, MOST_HELD_OUT = 0.1, 20  # of the scenes: a tenth, but no more than so many
FEW, PART, LEAST_PART = 10, 8, 16  # of fewer, an eighth of each picture, where that is so many pixels wide
SCORED = 512  # pixels a side of the part of a held-out picture that is scored, at most, of two shots
SHIFT = 0.5  # pixels between two shots from which on they count as misaligned
UNLIKE = 0.05  # by how much more they differ when moved the other way, where a shift is real
FURTHEST = 255  # grey levels beyond [0, 255], that of the first shot, up to which the others are learnt from
BLOCKS = 16  # of BLOCK pixels a side: so many say enough


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

    held_out: the shots, each 1×3×H×W, of what is kept back: of ten names or more a tenth of them, with all
        that is in their files; of fewer an eighth of each picture, or one name where all are too small.
    parts: whether parts of pictures are kept back.
    misaligned: name -> (rows, columns) by which a shot, the first such one, lies lower and further right than
        the scene's first, where either is half a pixel or more. Such scenes are trained on, but none is
        scored on.
    swap: whether the two pictures of a pair may change places. Not with a mean: what is denoised later is as
        noisy as a single shot.
    shots: how many each scene has. planes: whether shots are planes of files.
    pairs: how many patches there are. skipped: files that are no pictures.
    """

    def __init__(self, *folders: Path, seed: int) -> None:
        """Read the folders, as `match` does. Raises `ValueError` where a scene has a shot twice or shots of
        different sizes, or shots that show different scenes where only names or planes say that they are of
        one, and as `open_picture` does."""
        self.skipped: Counter[str] = Counter()
        files = match(*folders, skipped=self.skipped)
        sizes = self._survey(files)
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        whole, self.scored = self._choose(sizes, rng)
        self.held_out: list[tuple[Tensor, ...]] = []
        self.misaligned: dict[str, tuple[float, float]] = {}
        trained_on = {
            scene: rest(size) if self.parts else size
            for name, scenes in sizes.items()
            if name not in whole
            for scene, size in scenes.items()
        }
        side = min(PATCH, max(min(size) for size in trained_on.values()))
        numbers = self._numbers(trained_on, side)
        patches = []
        for name, paths in files.items():
            with _opened(name, paths) as scenes:
                for scene, shots in scenes.items():
                    if scene in numbers:
                        for a, b in self._pairs(scene, shots):
                            a, b = mirrored(a, side), mirrored(b, side)
                            patches += [cut(a, b, side, generator) for _ in range(numbers[scene])]
                    elif scene in self.scored:
                        deque(self._read(scene, shots), 0)
        first_shots, second_shots = zip(*patches, strict=True)
        # Where some are of eight bits and others deeper, all become float32.
        self.patches = torch.cat(first_shots), torch.cat(second_shots)
        self.pairs = len(self.patches[0])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # no slices
        return (self.patches,)[index]

    def _survey(self, files: dict[str, tuple[Path, ...]]) -> dict[str, dict[str, tuple[int, int]]]:
        """The size of each scene, by its name and that of its files: from headers, so that no more than one
        scene's pictures are in memory at once."""
        sizes, self.shots, self.planes, self.guessed = {}, dict[str, int](), False, False
        for name, paths in files.items():
            with _opened(name, paths) as scenes:
                sizes[name] = {scene: file.sizes[plane] for scene, ((file, plane), *_) in scenes.items()}
                self.shots |= {scene: len(shots) for scene, shots in scenes.items()}
            self.planes |= len(paths) == 1 or len(scenes) > 1
            # Which shots are of one scene was then guessed.
            self.guessed |= self.planes or len({path.stem for path in paths}) > 1
        self.swap = set(self.shots.values()) == {2}
        return sizes

    def _choose(
        self, sizes: dict[str, dict[str, tuple[int, int]]], rng: random.Random
    ) -> tuple[set[str], set[str]]:
        """(the names whose files are kept back, the scenes that are scored on)."""
        large = [scene for each in sizes.values() for scene, size in each.items() if rest(size) != size]
        self.parts = len(sizes) < FEW and bool(large)
        number = min(round(HELD_OUT * len(sizes)), MOST_HELD_OUT) or int(len(sizes) > 1)
        whole = set() if self.parts else set(rng.sample(sorted(sizes), number))
        kept_back = large if self.parts else [scene for name in sorted(whole) for scene in sizes[name]]
        return whole, set(rng.sample(kept_back, min(MOST_HELD_OUT, len(kept_back))))

    def _numbers(self, sizes: dict[str, tuple[int, int]], side: int) -> dict[str, int]:
        """How many patches to cut from each pair of pictures of each scene."""
        share = {
            scene: width * height / side**2 * self.shots[scene] / 2
            for scene, (width, height) in sizes.items()
        }
        # Twice as many patches as cover everything, but no fewer and no more than these.
        times = min(max(2, LEAST / sum(share.values())), MOST / sum(share.values()))
        pairs = {scene: 1 if self.swap else self.shots[scene] for scene in sizes}
        return {scene: math.ceil(times * share[scene] / pairs[scene]) for scene in sizes}

    def _pairs(self, scene: str, shots: Sequence[Shot]) -> Iterator[tuple[Tensor, Tensor]]:
        """What patches are cut from, without what is kept back: a shot and what is to be guessed from it."""
        if self.swap:
            a, b = (self._trained_on(shot) for shot in self._read(scene, shots))
            yield a, b
            return
        total, (first, scale) = sum(shot.float() for shot in self._read(scene, shots)), _load(shots[0])
        for number, each in enumerate(shots):  # read again: however many there are, memory holds a few
            shot = _load(each, scale)[0] if number else first
            yield self._trained_on(shot), self._trained_on((total - shot) / (len(shots) - 1))

    def _trained_on(self, picture: Tensor) -> Tensor:
        return parted(picture)[0] if self.parts else picture

    def _read(self, scene: str, shots: Sequence[Shot]) -> Iterator[Tensor]:
        """A scene's shots, one after the other, checked; after the last, `held_out` has what is kept back."""
        first, scale = _load(shots[0])
        seen: dict[int, Shot] = {}
        side = int(SCORED * math.sqrt(2 / len(shots)))  # to score takes as long, however many there are
        kept = []
        for number, each in enumerate(shots):
            shot = _load(each, scale)[0] if number else first
            both = f"{_named(shots[0])} and {_named(each)}"
            if shot.shape != first.shape:
                shapes = " and ".join(f"{it.shape[3]}×{it.shape[2]}" for it in (first, shot))
                raise ValueError(f"{both}: {shapes} pixels, expected the same")
            content = hash(shot.numpy().tobytes())
            if content in seen and shot.min() < shot.max():  # black twice is possible, noise twice is not
                twice = f"{_named(seen[content])} and {_named(each)}"
                raise ValueError(f"{twice}: the same picture, expected two shots")
            seen[content] = each
            if self.guessed and differ(first.float(), shot.float()):
                raise ValueError(f"{both}: different scenes, expected shots of one")
            if number:
                shift = shift_between(first.float(), shot.float())
                if max(map(abs, shift)) >= SHIFT:
                    self.misaligned.setdefault(scene, shift)
            if scene in self.scored:
                kept.append(_centre((parted(shot)[1] if self.parts else shot).float(), side))
            yield shot
        if kept and scene not in self.misaligned:
            self.held_out.append(tuple(kept))


@contextmanager
def _opened(name: str, paths: Sequence[Path]) -> Iterator[dict[str, list[Shot]]]:
    """The shots of each scene that files of one name hold, which are open meanwhile.

    Of a single file, its planes are the shots of one scene. Of several, those of the same number are.
    """
    with ExitStack() as stack:
        files = [_open(path, stack) for path in paths]
        for file in files:
            if len(file) != len(files[0]):
                both = f"{files[0].path} and {file.path}"
                raise ValueError(f"{both}: {len(files[0])} and {len(file)} planes, expected the same number")
        numbers = range(len(files[0]))
        if len(files) == 1:
            yield {name: [(files[0], plane) for plane in numbers]}
        else:
            names = [f"{name}, plane {plane + 1}" if len(numbers) > 1 else name for plane in numbers]
            yield {scene: [(file, plane) for file in files] for plane, scene in enumerate(names)}


def _open(path: Path, stack: ExitStack) -> PictureFile:
    """Open for as long as `stack` is, if it has several planes. Other files are opened again where they are
    read, as a scene can have more of them than may be open at once."""
    from .pictures import open_picture, read_picture

    with ExitStack() as own:
        file = own.enter_context(open_picture(path))
        if len(file) > 1:
            stack.enter_context(own.pop_all())
        else:
            file.read = lambda _: read_picture(path)
    return file


def _load(shot: Shot, scale: tuple[Any, str] | None = None) -> tuple[Tensor, tuple[Any, str]]:
    """(1×3×H×W in [0, 255], `uint8` where the file has eight bits, else `float32`; what 0 and 255 stand for,
    and numbers of which type).

    All shots of a scene must have the first one's scale, or they would differ by more than noise.
    """
    import numpy as np

    file, plane = shot
    picture = file[plane]
    if not np.isfinite(picture.pixels).all():
        raise ValueError(f"{_named(shot)}: NaN or infinity among its numbers")
    numbers = f"{picture.bits} bits" if picture.bits else str(picture.pixels.dtype)
    bounds, expected = scale or (picture.bounds, numbers)
    if numbers != expected:
        raise ValueError(f"{_named(shot)}: {numbers}, expected {expected} as in its scene's first shot")
    values = picture.tensor(bounds=bounds).clamp_(-FURTHEST, 255 + FURTHEST)  # a hot pixel is no scene
    whole = picture.pixels.dtype == np.uint8 and not picture.bits
    return values.to(torch.uint8) if whole else values, (bounds, numbers)


def _named(shot: Shot) -> str:
    file, plane = shot
    return f"{file.path}, plane {plane + 1}" if len(file) > 1 else str(file.path)


def match(*folders: Path, skipped: Counter[str] | None = None) -> dict[str, tuple[Path, ...]]:
    """The files of each scene's shots, by its name. skipped: as `find_photographs` takes it.

    Of several folders, each holds a shot of a scene under the scene's name, suffixes apart; or, where such
    names do not match, shots named x_1, x_2. Of a single folder, each folder in it is a scene, or it holds
    shots named x_1, x_2; or every file in it has several planes, and is a scene of its own. Files of several
    folders may have several planes too, each of them a scene. Raises `ValueError` where a scene has one shot
    only, a single folder has both files of several planes and others, or a folder holds no picture.
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
    if len(folders) == 1 and _are_stacks(named[0].values()):
        return {name: (path,) for name, path in named[0].items()}
    keys: list[Callable[[str], str]] = [str, _unnumbered] if len(folders) > 1 else [_unnumbered, _parent]
    for key in keys:
        scenes, places = defaultdict(list), defaultdict(list)
        for place, files in enumerate(named):
            for name, path in files.items():
                scenes[key(name)].append(path)
                places[key(name)].append(place)
        # Of several folders, each gives one shot of a scene; of a single one, those beside folders are none.
        once = len(folders) == 1 or all(len(set(each)) == len(each) for each in places.values())
        if "" not in scenes and once and all(len(paths) >= 2 for paths in scenes.values()):
            return {name: tuple(paths) for name, paths in scenes.items()}
    raise ValueError(_unmatched(folders, named))


def _are_stacks(paths: Collection[Path]) -> bool:
    """Whether all have several planes. Raises `ValueError` where only some have."""
    planes = {path: _planes(path) for path in paths}
    most, least = (choose(planes, key=planes.__getitem__) for choose in (max, min))
    if planes[most] > 1 and planes[least] == 1:
        raise ValueError(
            f"{most} has {planes[most]} planes and {least} one: expected all of them to have several, "
            "the shots of a scene, or none"
        )
    return planes[least] > 1


def _planes(path: Path) -> int:
    from .pictures import open_picture

    with open_picture(path) as file:
        return len(file)


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
        return (
            f"{folders[0]} holds {few}: expected a folder for each scene, or its shots named x_1, x_2, or "
            "as the planes of a file"
        )
    times = Counter(name for each in named for name in each)
    for folder, each in zip(folders, named, strict=True):
        if alone := sorted(name for name in each if times[name] == 1):
            few = ", ".join(alone[:3]) + (" …" if len(alone) > 3 else "")
            others = " nor ".join(str(other) for other in folders if other is not folder)
            break
    remedy = "; files whose planes are the shots go into one folder" if _planes(each[alone[0]]) > 1 else ""
    return f"{others} has no {few}: each picture needs a second shot of the same name{remedy}"


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


def rest(size: tuple[int, int]) -> tuple[int, int]:
    """What is left to train on of a picture of this size, of which a part is kept back."""
    longer = max(size)
    part = longer // PART if longer >= PART * LEAST_PART else 0
    return (size[0] - part, size[1]) if size[0] == longer else (size[0], size[1] - part)


def parted(images: Tensor) -> tuple[Tensor, Tensor]:
    """(what is trained on, the part that is kept back) of N×3×H×W: a strip at the end of the longer side, the
    same in all shots and planes."""
    height, width = rest((images.shape[2], images.shape[3]))
    kept = images[..., height:, :] if height < images.shape[2] else images[..., width:]
    return images[..., :height, :width], kept


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
