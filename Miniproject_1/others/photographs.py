"""Photographs: found, opened, split into those to train on and those held out, cropped."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..model import Workers, tqdm

if TYPE_CHECKING:  # Pillow is imported where photographs are: reading a .pkl needs torch alone
    from PIL.Image import Image
    from torch import Tensor

SMALLEST = 128  # pixels a side under which a photograph is skipped: its blocks say too little
MOST_PIXELS = 89_478_485  # of a picture, as Pillow has it: a quarter of a gigabyte of RGB
SUFFIXES = {".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp"}

Item = TypeVar("Item")
Result = TypeVar("Result")


def find_photographs(
    folder: Path, suffixes: Collection[str] = SUFFIXES, skipped: Counter[str] | None = None
) -> list[Path]:
    """Every file with one of these suffixes under `folder`, at any depth, in the order of their names.

    Hidden files and folders, whose names begin with a dot, are left out: a Mac puts a `._x.jpg` beside each
    `x.jpg`, and no picture is in it. Linked folders are followed.
    skipped: what was left out is counted here, by its kind.
    """
    folder, found = Path(folder), []
    skipped = Counter() if skipped is None else skipped
    if not folder.is_dir():
        raise FileNotFoundError(f"PHOTOS: {folder} is not a folder")
    for _, paths in walk(folder, skipped):
        for path in paths:
            if path.suffix.lower() in suffixes and os.path.isfile(path):
                found.append(path)
            else:
                skipped["of another kind" if os.path.exists(path) else "not readable"] += 1
    return sorted(found)


def walk(folder: Path, skipped: Counter[str]) -> Iterator[tuple[Path, list[Path]]]:
    """`folder` and each folder below it, with what it holds beside folders; nothing hidden.

    Linked folders are followed, but not where they lead back to a folder that they lie in. What is not
    looked into is counted in `skipped`.
    """
    waiting = [(folder, [folder.resolve()])]
    while waiting:
        folder, above = waiting.pop()
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            skipped["not readable"] += 1
            continue
        files = []
        for path in entries:
            if path.name.startswith("."):
                skipped["hidden"] += 1
            elif not os.path.isdir(path):  # unlike Path's, it raises nothing where it may not look
                files.append(path)
            elif path.resolve() in above:
                skipped["linked in a circle"] += 1
            else:
                waiting.append((path, [*above, path.resolve()]))
        yield folder, files


def tell_skipped(skipped: Counter[str]) -> None:
    """One line with what was counted, where anything was."""
    if skipped:
        print("skipped:", ", ".join(f"{number} {kind}" for kind, number in skipped.items()), flush=True)


def embedded_photographs() -> list[Path]:
    """The colour photographs that the `scikit-image` wheel carries.

    Left out: its drawings and test charts, and the right eye of the motorcycle's stereo pair, which
    shows what the left one shows.
    Raises `ModuleNotFoundError`, with the line that installs it, where scikit-image is missing.
    """
    try:
        import skimage.data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the embedded photographs need scikit-image: python -m pip install scikit-image"
        ) from error
    names = (
        "astronaut.png chelsea.png coffee.png hubble_deep_field.jpg "
        "ihc.png motorcycle_left.png retina.jpg rocket.jpg"
    )
    return [Path(skimage.data.__file__).parent / name for name in names.split()]


def open_photograph(path: Path) -> Image:
    """The photograph as an 8-bit RGB picture."""
    import PIL.Image

    with PIL.Image.open(path) as image:
        refuse_bomb(image)
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{path}: not 8 bits a channel")
        return image.convert("RGB")


def pixels_of(image: Image) -> Tensor:
    """The pixels of a picture of 8 bits, C×H×W `uint8`."""
    import torch

    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def refuse_bomb(image: Image, *, large: bool = False) -> None:
    """Raise `ValueError` for an opened picture so large that it may be a decompression bomb."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's tiles can be larger than the picture
    for width, height in (image.size, (tags.get(322, 0), tags.get(323, 0))):
        refuse_pixels(width, height, large=large)


def refuse_pixels(width: int, height: int, *, large: bool = False) -> None:
    """Raise `ValueError` for so many that they may be a decompression bomb, unless `large`."""
    if width * height > MOST_PIXELS and not large:
        raise ValueError(f"{width}×{height} pixels: a decompression bomb? If not, denoise --large takes it")


def split_photographs(
    photographs: list[Path], *, val: int, seed: int
) -> tuple[list[Path], list[Path], dict[str, int]]:
    """(photographs to train on, photographs held out for `val` pictures, how many were skipped and why).

    The same photographs, `val` and `seed` give the same split. Raises `ValueError` where too few are left.
    """
    kinds = list(in_threads(_inspect, photographs, "checking photographs"))
    usable, seen = [], set()
    for path, kind in zip(photographs, kinds, strict=True):
        if kind not in ("unreadable", "too small") and kind not in seen:
            seen.add(kind)
            usable.append(path)
    needed = 2 if val else 1
    unreadable, too_small = kinds.count("unreadable"), kinds.count("too small")
    if len(usable) < needed:
        raise ValueError(
            f"PHOTOS: {len(usable)} usable photographs ({len(photographs)} files, {unreadable} "
            f"unreadable, {too_small} with a side under {SMALLEST} pixels), "
            f"expected {needed} or more"
        )
    random.Random(seed).shuffle(usable)
    # One validation picture a photograph where there are many, a quarter of them where there are few.
    held_out = min(val, max(1, len(usable) // 4))
    duplicates = len(photographs) - unreadable - too_small - len(usable)
    skipped = {"unreadable": unreadable, "too_small": too_small, "duplicates": duplicates}
    return usable[held_out:], usable[:held_out], skipped


def _inspect(path: Path) -> str:
    """'unreadable', 'too small', or a fingerprint of the file's bytes."""
    try:
        image = open_photograph(path)
        fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception:  # whatever a decoder finds wrong with a stranger's file, it is skipped
        return "unreadable"
    return "too small" if min(image.size) < SMALLEST else fingerprint


def at_least(side: int, photographs: list[Path]) -> list[Path]:
    """Those of the photographs that have so many pixels a side."""
    import PIL.Image

    kept = []
    for path in photographs:
        with PIL.Image.open(path) as image:
            if min(image.size) >= side:
                kept.append(path)
    return kept


def centre_square(photograph: Image, side: int | None = None) -> Image:
    """The centred square of this side, by default the largest."""
    width, height = photograph.size
    side = side or min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return photograph.crop((left, top, left + side, top + side))


def random_square(photograph: Image, rng: random.Random, side: int | None = None) -> Image:
    """A square in a random place; of random side, three quarters of the photograph's or more, by default."""
    width, height = photograph.size
    shorter = min(width, height)
    side = side or rng.randint(max(SMALLEST, shorter * 3 // 4), shorter)
    left, top = rng.randint(0, width - side), rng.randint(0, height - side)
    return photograph.crop((left, top, left + side, top + side))


def reduced(photograph: Image, shorter: int) -> Image:
    """With a shorter side of so many pixels, where it has more."""
    factor = min(1, shorter / min(photograph.size))
    return photograph.resize([round(factor * side) for side in photograph.size])


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], label: str) -> Iterator[Result]:
    """`map` over all cores, with a progress bar where there is tqdm.

    Threads are enough: Pillow and torch work outside the interpreter's lock.
    """
    items = list(items)
    with Workers(os.cpu_count() or 1) as workers:
        results = workers.map(function, items)
        yield from tqdm(results, label, total=len(items), unit="photo") if tqdm else results
