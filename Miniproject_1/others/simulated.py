"""Photographs under simulated noise, two shots of each scene: what `photographs.pth` is trained on.

The paper trains so (Lehtinen et al. 2018, section 3.1): noise is put on photographs anew for the input and
for the target, and the network sees nothing else. Noise is not clipped to [0, 255], except where a camera
would, so that its mean is zero. The target is the mean of several shots, which asks for the same answer as
each of them in turn, only with less noise.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..model import Workers
from .noises import photons
from .photographs import open_photograph, pixels_of, split_photographs

SIDE = 64  # pixels of a patch
REACH = 3  # pixels at which a blur ends
SHARD = 1_024  # patches
SHOTS = 64  # whose mean is a target ...
CAMERA_SHOTS = 8  # ... and where each must be developed
HELD_OUT = 50  # photographs, one patch of each
GREY = 0.15  # share of the patches without colours
WEAKER = 1.5  # power of the share of the strongest σ: one in five is then below 5 grey levels
ENLARGED = 0.4  # share of the patches that are enlarged: full-size pictures are less sharp
GRAINY = 0.5  # share of the patches with a grain of the picture's own, which is not to be taken away ...
GRAIN = 2  # ... and the σ of the strongest: small photographs have none left, full-size ones do
KINDS = {"weak": 0.1, "gaussian": 0.42, "correlated": 0.13, "poisson": 0.1, "camera": 0.25}


class SimulatedShots(Sequence):
    """Shards of (noisy, target), each N×3×64×64 `float32`: a patch of every photograph, in random places.

    The noise of each patch is of a random kind and strength: Gaussian with σ of 0 to 60, more often weak than
    strong; of 0 to 1; of 0 to 60 with correlated neighbours; Poisson with 5 to 300 counts at white; or a
    camera's. Some patches have a grain of their own, the same in both. A patch's picture, grain and noise
    depend on `seed`, `epoch` and its number alone.

    epoch: 0, 1, ...; each has its own places and noise.
    held_out: one such pair, of photographs that are not trained on; pairs: patches an epoch; swap: noisy and
        target never change places.
    """

    swap = False

    def __init__(self, photographs: list[Path], seed: int) -> None:
        """Raises `ValueError` where too few photographs are left to split."""
        self.photographs, held_out, _ = split_photographs(photographs, val=HELD_OUT, seed=seed)
        self.seed, self.epoch, self.pairs = seed, 0, len(self.photographs)
        self.threads = max(1, torch.get_num_threads())  # of which `Training` leaves one to each of its own
        self.held_out = [_stacked(simulated_pair(path, f"{seed} val {n}") for n, path in enumerate(held_out))]

    def __len__(self) -> int:
        return math.ceil(self.pairs / SHARD)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # no slices
        numbers = range(self.pairs)[index * SHARD : (index + 1) * SHARD]
        if not numbers:
            raise IndexError(index)
        seed = f"{self.seed} {self.epoch}"
        with Workers(self.threads) as workers:
            return _stacked(
                workers.map(lambda n: simulated_pair(self.photographs[n], f"{seed} {n}"), numbers)
            )


def _stacked(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    noisy, target = zip(*pairs, strict=True)
    return torch.stack(noisy), torch.stack(target)


def simulated_pair(path: Path, seed: str) -> tuple[Tensor, Tensor]:
    """(a noisy shot, the mean of others) of a random patch of a photograph, 3×64×64 each."""
    rng = random.Random(seed)
    generator = Generator().manual_seed(rng.getrandbits(63))
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    clean = _patch(path, rng)
    if rng.random() < GREY:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601
        clean = (clean * weights).sum(0, keepdim=True)
    if rng.random() < GRAINY:
        grain = rng.uniform(0, GRAIN) * _unit_noise(clean.shape, rng.uniform(0.3, 1), generator)
        clean = (clean + grain).clamp(0, 255)
    if kind == "camera":
        noisy, target = camera_shots(clean, rng, generator)
    elif kind == "poisson":
        counts = 10 ** rng.uniform(0.7, 2.5)
        noisy, target = (photons(clean, each, generator) for each in (counts, SHOTS * counts))
    else:
        sigma = rng.random() if kind == "weak" else 60 * rng.random() ** WEAKER
        blur = rng.uniform(0.4, 1.2) if kind == "correlated" else 0
        noisy, target = (
            clean + each * _unit_noise(clean.shape, blur, generator)
            for each in (sigma, sigma / math.sqrt(SHOTS))
        )
    return noisy.expand(3, -1, -1), target.expand(3, -1, -1)


def _patch(path: Path, rng: random.Random) -> Tensor:
    """A random square of the photograph, some of them enlarged: 3×64×64 in [0, 255]."""
    photograph = open_photograph(path)
    side = round(SIDE / rng.uniform(1, 2.5)) if rng.random() < ENLARGED else SIDE
    left, top = (rng.randint(0, length - side) for length in photograph.size)
    patch = photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
    return pixels_of(patch).float()


def _unit_noise(shape: torch.Size, blur: float, generator: Generator) -> Tensor:
    """C×H×W of Gaussian noise, blurred by a Gaussian of so many pixels, before it is brought to σ 1."""
    noise = _blurred(torch.randn(shape, generator=generator).unsqueeze(0), blur, "circular").squeeze(0)
    return noise / _gaussian(blur).square().sum()


def _blurred(images: Tensor, blur: float, padding: str = "reflect") -> Tensor:
    """N×C×H×W, by a Gaussian of so many pixels, by none at 0."""
    line = _gaussian(blur).expand(images.shape[1], 1, 1, -1)
    images = F.conv2d(F.pad(images, (REACH, REACH, 0, 0), mode=padding), line, groups=images.shape[1])
    return F.conv2d(F.pad(images, (0, 0, REACH, REACH), mode=padding), line.mT, groups=images.shape[1])


def _gaussian(blur: float) -> Tensor:
    """The bell of so many pixels at -`REACH` ... `REACH`, of sum 1."""
    return F.softmax(-((torch.arange(-REACH, REACH + 1) / max(blur, 0.01)) ** 2) / 2, 0)


def camera_shots(clean: Tensor, rng: random.Random, generator: Generator) -> tuple[Tensor, Tensor]:
    """(a shot, the mean of `CAMERA_SHOTS` others) as a camera takes them of 1×H×W or 3×H×W in [0, 255].

    Photons and the sensor's own noise in linear light, a Bayer mosaic, demosaicing, white balance, a colour
    matrix and a tone curve as in Brooks et al. 2019 (arXiv 1811.11127), section 3, with their ranges but for
    the matrix; what the lens blurs, and what cameras smooth and sharpen; JPEG. The scene that the camera sees
    is the photograph, with tone curve, matrix and white balance undone.
    """
    gains = torch.tensor([rng.uniform(1.9, 2.4), 1, rng.uniform(1.5, 1.9)]).view(3, 1, 1)
    matrix = _colour_matrix(rng)
    shot_noise = math.exp(rng.uniform(math.log(1e-4), math.log(0.012)))
    read_noise = math.exp(2.18 * math.log(shot_noise) + 1.2 + rng.gauss(0, 0.26))
    smoothing = rng.uniform(0, 1.5), rng.uniform(0.4, 1), rng.uniform(-1, 1)
    quality, subsampling = rng.randint(70, 100), rng.choice((0, 2))
    light = _blurred(((clean / 255) ** 2.2).expand(1, 3, -1, -1), rng.uniform(0.3, 0.7)).squeeze(0)
    raw = mosaic((_mixed(light, matrix.inverse()) / gains).clamp(0, 1))
    noise = torch.randn(1 + CAMERA_SHOTS, *raw.shape, generator=generator)
    shots = (raw + noise * (shot_noise * raw + read_noise).sqrt()).clamp(0, 1)
    developed = _mixed((demosaic(shots) * gains).clamp(0, 1), matrix).clamp(0, 1) ** (1 / 2.2)
    developed = _finished(developed, *smoothing).clamp(0, 1)
    if len(clean) == 1:
        developed = developed.mean(1, keepdim=True)
    pictures = [_jpeg(each, quality, subsampling) for each in (255 * developed).round().to(torch.uint8)]
    return pictures[0], torch.stack(pictures[1:]).mean(0)


def _colour_matrix(rng: random.Random) -> Tensor:
    """From a camera's colours to a picture's: each less some of the two others; white stays white.

    So it makes colours stronger, and with them the noise.
    """
    share = torch.tensor([[rng.uniform(0, 0.5) * (row != other) for other in range(3)] for row in range(3)])
    return torch.eye(3) + share.sum(1).diag() - share


def _finished(images: Tensor, colours: float, brightness: float, weight: float) -> Tensor:
    """N×3×H×W, colours and brightness smoothed by so many pixels each, with a `weight` below 0 sharpened."""
    grey = images.mean(1, keepdim=True)
    return grey.lerp(_blurred(grey, brightness), weight) + _blurred(images - grey, colours)


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    """... × 3×H×W, the colours of each pixel multiplied by the matrix."""
    return torch.einsum("rc,...chw->...rhw", matrix, images)


def mosaic(image: Tensor) -> Tensor:
    """What a sensor behind a Bayer filter (RGGB) sees of 3×H×W, H and W even: H×W."""
    red, green, blue = image
    raw = green.clone()
    raw[0::2, 0::2] = red[0::2, 0::2]
    raw[1::2, 1::2] = blue[1::2, 1::2]
    return raw


def demosaic(raw: Tensor) -> Tensor:
    """N×H×W behind a Bayer filter -> N×3×H×W, bilinearly: what a pixel lacks is its neighbours' mean."""
    colours = torch.zeros(len(raw), 3, *raw.shape[1:])
    colours[:, 0, 0::2, 0::2] = raw[:, 0::2, 0::2]
    colours[:, 1, 0::2, 1::2] = raw[:, 0::2, 1::2]
    colours[:, 1, 1::2, 0::2] = raw[:, 1::2, 0::2]
    colours[:, 2, 1::2, 1::2] = raw[:, 1::2, 1::2]
    sparse = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4  # red and blue, a quarter of the pixels
    dense = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4  # green, half of them
    kernels = torch.stack([sparse, dense, sparse]).unsqueeze(1)
    return F.conv2d(F.pad(colours, (1, 1, 1, 1), mode="reflect"), kernels, groups=3)


def _jpeg(image: Tensor, quality: int, subsampling: int) -> Tensor:
    """1×H×W or 3×H×W `uint8` as JPEG gives it back, `float32`."""
    import PIL.Image

    file = io.BytesIO()
    array = image.permute(1, 2, 0).squeeze(2).numpy()
    PIL.Image.fromarray(array).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return pixels_of(PIL.Image.open(file)).float()
