"""Denoise picture files."""

import glob
import sys
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from ..model import TILE, Model, tqdm
from .console import stop_signals
from .machine import PHOTOGRAPHS, load_model
from .metrics import noise_sigma, psnr, ssim
from .photographs import find_photographs, tell_skipped, walk
from .pictures import (
    FORMATS,
    Bounds,
    Picture,
    PictureFile,
    by_name,
    left_out,
    open_picture,
    refuse,
    upright,
    write_picture,
    write_pictures,
)
from .sources import SHIFT, shift_between

GAP = 8  # white pixels between the halves of a comparison
PIXELS_AT_ONCE = 2**22  # about so many are in `float32` at once, of however large a picture
MIDDLE = 2_048  # pixels a side by which a picture's noise is judged, and whether a shot is shifted


def denoise(
    inputs: list[str],
    output: Path | None = None,
    *,
    weights: Path | None = None,
    strength: float = 1,
    burst: bool = False,
    compare: bool = False,
    clean: Path | None = None,
    large: bool = False,
    force: bool = False,
    skip_existing: bool = False,
    device: str | None = None,
) -> None:
    """Denoise pictures with `photographs.pth`, or with the model in `weights`.

    inputs: files, folders (every picture in them, at any depth) and glob patterns.
    output: a file, where `inputs` is one file and this name ends as a picture's does; else a folder, in which
        each keeps its name, and its place where a folder was named. By default NAME.denoised.EXT beside each.
    strength: how much of what is taken for noise goes, 0 ... 1.
    burst: all inputs are shots of one scene, nothing moved: the mean of their answers is written, as the
        answer to the first.
    compare: also write NAME.compare.png, noisy and denoised side by side, upright and of 8 bits; of a file
        with several planes the first.
    clean: the clean picture, or a folder with clean ones of the same names, suffixes apart, below the folder
        that was named: print PSNR and SSIM, of several planes the means.
    large: also pictures of more than 89 million pixels a plane.
    force: overwrite. skip_existing: leave out what is there already.

    Prints the noise that each picture seems to have. A picture that cannot be read or written is named on
    stderr and the others are done. Raises `FileNotFoundError`, `FileExistsError` or `ValueError` before
    anything is written, and `ValueError` at the end where some picture failed. Ctrl-C while a picture is
    being written waits until it is.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"--strength {strength:g}: expected a number, 0 ... 1")
    found = _find(inputs, output)
    if burst and len(found) < 2:
        raise ValueError("INPUT: --burst takes two shots of a scene or more, got 1")
    found, more_shots = (found[:1], [path for path, _ in found[1:]]) if burst else (found, [])
    references = _references([name for _, name in found], clean)
    read = {path.resolve() for path in [*(path for path, _ in found), *more_shots, *references] if path}
    jobs = _plan(found, read, output, compare=compare, standing_too=force or skip_existing)
    work = [(*job, reference) for job, reference in zip(jobs, references, strict=True)]
    if skip_existing:
        work = [job for job in work if not all(path.exists() for path in _written(job[1], compare))]
        if len(work) < len(jobs):
            print(f"{len(jobs) - len(work)} of {len(jobs)} are there already", flush=True)
    if work:
        model = load_model(weights or PHOTOGRAPHS, device)
        options: dict[str, Any] = {
            "compare": compare,
            "keep": skip_existing,
            "large": large,
            "strength": strength,
        }
        _denoise_all(model, work, more_shots, **options)


def _denoise_all(
    model: Model,
    work: list[tuple[Path, Path, Path | None]],
    more_shots: list[Path],
    *,
    compare: bool,
    keep: bool,
    large: bool,
    strength: float,
) -> None:
    """Denoise each (source, target, clean picture); keep: leave what stands as it is."""
    written = complaints = 0
    say = tqdm.write if tqdm else print  # a line of its own, beside the bar
    try:
        for source, target, reference in tqdm(work, "denoise", unit="picture") if tqdm else work:
            try:
                with ExitStack() as stack, stop_signals() as stopped:
                    paths = (source, *more_shots)
                    shots = [stack.enter_context(open_picture(path, large=large)) for path in paths]
                    planes = Planes(model, shots, target, reference, strength, stopped)
                    if keep and target.exists():
                        deque(planes, 0)
                    else:
                        write_pictures(shots[0], iter(planes), target)
                    written += 1
                for line in planes.messages():
                    say(f"{source}: {line}", file=sys.stderr)
                say(f"{source}: {planes.noise()}")
                if stopped:
                    raise KeyboardInterrupt
                if compare and not (keep and _comparison(target).exists()):
                    write_picture(_side_by_side(*planes.first), _comparison(target))
                if reference:
                    say(f"{source}: {planes.score()}")
            except Exception as error:  # a stranger's file: no decoder or encoder may end the rest
                complaints += 1
                say(str(error) if str(source) in str(error) else f"{source}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        message = f"{written} of {len(work)} pictures are written; --skip-existing goes on with the others"
        raise KeyboardInterrupt(message) from None
    _sum_up(len(work), written, complaints)


def _sum_up(number: int, written: int, complaints: int) -> None:
    """Raise `ValueError` where a picture was not written, or not compared or scored as was asked."""
    failed = number - written
    messages = [f"{failed} of {number} pictures failed"] if failed else []
    if complaints > failed:
        messages.append(f"{complaints - failed} of {number} are written, but not compared or scored")
    if messages:
        raise ValueError("; ".join(messages))


class Planes:
    """The denoised planes of a file, made as they are asked for: of several shots, the mean of their answers.

    first: the first plane, noisy and denoised.
    """

    first: tuple[Picture, Picture]

    def __init__(
        self,
        model: Model,
        shots: list[PictureFile],
        target: Path,
        reference: Path | None,
        strength: float,
        stopped: list[int],
    ) -> None:
        self.model, self.shots, self.target, self.reference = model, shots, target, reference
        self.strength, self.stopped = strength, stopped
        self.scores: list[tuple[float, ...]] = []
        self.unscored: Exception | None = None
        if other := next((shot for shot in shots if len(shot) != len(shots[0])), None):
            raise ValueError(
                f"{other.path}: {len(other)} planes, expected {len(shots[0])} as in the first shot"
            )

    def __iter__(self) -> Iterator[Picture]:
        file, *more = self.shots
        clean = _planes_of(self.reference, len(file)) if self.reference else None
        bar = tqdm(file, "planes", unit="plane", leave=False) if tqdm and len(file) > 1 else file
        for number, shots in enumerate(zip(bar, *more, strict=True)):
            refuse(file, shots[0], self.target)
            for shot, other in zip(shots[1:], more, strict=True):
                _check_shot(shots[0], shot, other.path)
            denoised = self._denoised(shots)
            if number == 0:
                self.first = shots[0], denoised
            if clean and not self.unscored:
                try:
                    self.scores.append(_scores(shots[0], denoised, next(clean)))
                except Exception as error:  # raised once the picture is written
                    self.unscored = error
            yield denoised

    def _denoised(self, shots: tuple[Picture, ...]) -> Picture:
        """By bands of rows, with as much around each as the network can see: as if it were done at once."""
        height, width = shots[0].pixels.shape[:2]
        stride = self.model.network.stride
        margin = -(-self.model.network.reach // stride) * stride
        rows = max(1, PIXELS_AT_ONCE // (TILE * width)) * TILE
        tops = range(0, height, rows)
        pixels = np.empty_like(shots[0].pixels)
        low, high = shots[0].bounds
        for shot in shots[1:]:  # one scale for all, that no hot pixel leaves
            low, high = np.minimum(low, shot.bounds[0]), np.maximum(high, shot.bounds[1])
        bounds = low, high
        # Of 8 bits, the rounding hides that of bfloat16.
        self.model.mixed_precision = pixels.dtype.itemsize == 1
        for top in tqdm(tops, "bands", unit="band", leave=False) if tqdm and len(tops) > 1 else tops:
            if self.stopped:
                raise KeyboardInterrupt
            start = max(0, top - margin)
            band = slice(start, top + rows + margin)
            noisy = [shot.tensor(band, bounds) for shot in shots]
            with warnings.catch_warnings():  # a dark picture looks like [0, 1], and is not
                warnings.simplefilter("ignore")
                answer = torch.stack([self.model.predict(shot) for shot in noisy]).mean(0)
            answer = noisy[0].lerp(answer, self.strength)[:, :, top - start :][:, :, :rows]
            pixels[top : top + rows] = shots[0].with_values(answer, bounds).pixels
        return shots[0]._replace(pixels=pixels)

    def messages(self) -> list[str]:
        """What somebody should know of the file: what is left out, and what it was taken for."""
        return left_out(self.shots[0], self.first[0], self.target)

    def noise(self) -> str:
        """The standard deviation of the first plane's noise, estimated in its middle."""
        return f"noise of about σ {noise_sigma(_middle(self.first[0])[0]):.1f} of 255"

    def score(self) -> str:
        """PSNR and SSIM before and after, the means over the planes. Raises where they could not be had."""
        if self.unscored:
            raise self.unscored
        before, after, ssim_before, ssim_after = np.mean(self.scores, axis=0)
        return f"PSNR {before:.2f} -> {after:.2f} dB, SSIM {ssim_before:.3f} -> {ssim_after:.3f}"


def _planes_of(path: Path, number: int) -> Iterator[Picture]:
    """The planes of the clean picture."""
    with open_picture(path, large=True) as file:
        if len(file) != number:
            raise ValueError(f"--clean: {len(file)} planes, expected {number}")
        yield from file


def _check_shot(first: Picture, shot: Picture, path: Path) -> None:
    """Warn where something moved. Raises `ValueError` where the shot is another kind of picture."""
    expected, found = (
        (*picture.pixels.shape, str(picture.pixels.dtype), picture.kept.get("orientation", 1))
        for picture in (first, shot)
    )
    if found != expected:
        words = "H×W×channels, type and orientation"
        raise ValueError(f"{path}: expected the first shot's {words}, {expected}, got {found}")
    # One hot pixel in the shot would outweigh all that both show.
    rows, columns = shift_between(_middle(first), _middle(shot, first.bounds).clamp(0, 255))
    if max(abs(rows), abs(columns)) >= SHIFT:
        moved = f"shifted by {rows:+.1f} rows and {columns:+.1f} columns against the first shot"
        print(f"warning: {path}: {moved}; the mean of both is blurred", file=sys.stderr)


def _middle(picture: Picture, bounds: Bounds | None = None) -> Tensor:
    """1×3×H×W in [0, 255] of its first channels: of a large one, all of it in `float32` would not fit."""
    height, width = picture.pixels.shape[:2]
    top, left = (max(0, (length - MIDDLE) // 2) for length in (height, width))
    part = picture.pixels[top : top + MIDDLE, left : left + MIDDLE]
    return picture._replace(pixels=part).tensor(bounds=bounds or picture.bounds)[:1]


def _find(inputs: list[str], output: Path | None) -> list[tuple[Path, Path]]:
    """Each picture, and its name below the output folder. Raises where an input has none."""
    found: list[tuple[Path, Path]] = []
    below: set[Path] = set()  # found in folders that the user need not have thought of
    skipped: Counter[str] = Counter()
    for each in inputs:
        path = Path(each)
        matches = [path] if path.exists() else _matches(each)
        if not matches:
            raise FileNotFoundError(f"INPUT: {each}: no such file, folder or pattern with a match")
        names: dict[Path, Path] = {}  # a pattern can match a folder and, again, what is in it
        for match in matches:
            if match.is_dir():
                pictures = find_photographs(match, FORMATS, skipped)
                names = {picture: picture.relative_to(match) for picture in pictures} | names
                below.update(pictures if output and match.resolve() != output.resolve() else ())
            elif match == path or match.suffix.lower() in FORMATS:
                names.setdefault(match, Path(match.name))
                below.update([match] if "**" in path.parts else ())
            else:
                skipped["of another kind"] += 1
        found += sorted(names.items())
    made = _made_before([path for path, _ in found], below, output)
    skipped["made before"] = len(made)
    tell_skipped(+skipped)
    found = [(path, name) for path, name in found if path not in made]
    if not found:
        raise FileNotFoundError(f"INPUT: no picture in {', '.join(inputs)}")
    return found


def _made_before(found: list[Path], below: set[Path], output: Path | None) -> set[Path]:
    """Those of the pictures found that are no input, but what an earlier call has made of others.

    Beside one of them, by the name of its answer; or in the output, where that lies below what was named.
    """
    beside = {path for each in found for path in _written(_beside(each), True)}
    made = output.resolve() if output and output.is_dir() else None
    inside = {each for each in below if made and each.resolve().is_relative_to(made)}
    return beside.intersection(found) | inside


def _matches(pattern: str) -> list[Path]:
    """The files and folders that a glob pattern matches; each bracket can also be a part of a name."""
    head, *tails = pattern.split("[")
    for brackets in product(("[[]", "["), repeat=len(tails)):  # names first
        found = _glob(head + "".join(map(add, brackets, tails)))
        if found:
            return found
    return []


def _glob(pattern: str) -> list[Path]:
    """As `glob.glob`, in the order of their names; but `**` goes into no circles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return [Path(match) for match in sorted(glob.glob(pattern))]
    before, after = parts[: parts.index("**")], parts[parts.index("**") + 1 :]
    top = _glob(str(Path(*before)))
    if not after:
        return top
    folders = [below for each in top if each.is_dir() for below, _ in walk(each, Counter())]
    return [match for each in folders for match in _glob(str(Path(glob.escape(str(each)), *after)))]


def _plan(
    found: list[tuple[Path, Path]],
    read: set[Path],
    output: Path | None,
    *,
    compare: bool,
    standing_too: bool,
) -> list[tuple[Path, Path]]:
    """(source, target) of each picture. Raises where a target is one of those that are read, comes twice or,
    unless `standing_too`, stands already."""
    names_a_file = output is not None and _names_a_file(output)
    if names_a_file and len(found) > 1:
        raise FileExistsError(f"OUTPUT: {output} names a file, expected a folder for {len(found)} pictures")
    if output is None:
        jobs = [(source, _beside(source)) for source, _ in found]
    else:
        jobs = [(source, output if names_a_file else output / name) for source, name in found]
    written = [path for _, target in jobs for path in _written(target, compare)]
    if same := next((path for path in written if path.resolve() in read), None):
        raise FileExistsError(f"{same} is read and would be replaced: name another output")
    if twice := next((path for path, times in Counter(written).items() if times > 1), None):
        both = " and ".join(str(source) for source, target in jobs if twice in _written(target, compare))
        raise FileExistsError(f"INPUT: {both} would both become {twice}")
    standing = [] if standing_too else [path for path in written if path.exists()]
    if standing:
        more = f", and {len(standing) - 1} more of {len(written)}" if standing[1:] else ""
        remedy = "--force overwrites, --skip-existing goes on with the others"
        raise FileExistsError(f"{standing[0]} is there already{more}; {remedy}")
    return jobs


def _names_a_file(output: Path) -> bool:
    """Whether it is a file's name, or else a folder's. Raises for a picture's that cannot be written."""
    suffix = output.suffix.lower()
    if suffix in PIL.Image.registered_extensions() and suffix not in FORMATS and not output.is_dir():
        raise ValueError(f"OUTPUT: {output}: expected a folder or one of {', '.join(sorted(FORMATS))}")
    return output.is_file() or (suffix in FORMATS and not output.is_dir())


def _beside(source: Path) -> Path:
    return source.with_name(f"{source.stem}.denoised{source.suffix}")


def _written(target: Path, compare: bool) -> list[Path]:
    """What is written for one picture."""
    return [target, _comparison(target)] if compare else [target]


def _references(names: list[Path], clean: Path | None) -> list[Path | None]:
    """The clean picture of each name. Raises where one is missing."""
    if clean is None or not clean.is_dir():
        if clean and not clean.exists():
            raise FileNotFoundError(f"--clean: {clean}: no such file or folder")
        return [clean] * len(names)
    references = by_name(clean)
    keys = [str(name.with_suffix("")) for name in names]
    if missing := next((key for key in keys if key not in references), None):
        raise FileNotFoundError(f"--clean: {clean} has no picture {missing}")
    return [references[key] for key in keys]


def _comparison(target: Path) -> Path:
    return target.with_name(f"{target.name}.compare.png")  # x.jpg and x.tif have one each


def _scores(noisy: Picture, denoised: Picture, clean: Picture) -> tuple[float, ...]:
    """(PSNR before, after, SSIM before, after) against the clean picture."""
    if (noisy.nominal_bounds is None) != (clean.nominal_bounds is None):
        types = f"{clean.pixels.dtype} and {noisy.pixels.dtype}"
        raise ValueError(f"--clean: its numbers and the noisy picture's, {types}, have no white in common")
    before, after, target = (
        picture.tensor(bounds=picture.nominal_bounds or clean.bounds) for picture in (noisy, denoised, clean)
    )
    if noisy.kept.get("orientation", 1) != clean.kept.get("orientation", 1):
        raise ValueError("--clean: its EXIF orientation is another than the noisy picture's")
    if clean.pixels.shape[2] < noisy.pixels.shape[2]:
        raise ValueError("--clean: grey, expected colours as the noisy picture has")
    if target.shape != before.shape:
        raise ValueError(
            f"--clean: {'×'.join(map(str, clean.pixels.shape[:2]))} pixels, expected those of the "
            f"noisy picture, {'×'.join(map(str, noisy.pixels.shape[:2]))}"
        )
    pairs = product((psnr, ssim), (before, after))
    return tuple(metric(images, target).mean().item() for metric, images in pairs)


def _side_by_side(noisy: Picture, denoised: Picture) -> Picture:
    """Both in one 8-bit RGB picture, upright, a gap between them; alpha is left out."""
    left, right = (upright(picture, noisy.bounds) for picture in (noisy, denoised))
    gap = np.full((len(left), GAP, 3), 255, np.uint8)
    profile = noisy.kept.get("icc_profile") if noisy.pixels.shape[2] == 3 else None  # a grey one fits no RGB
    return Picture(np.hstack([left, gap, right]), None, {"icc_profile": profile} if profile else {})
