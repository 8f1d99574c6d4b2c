"""Denoise picture files."""

import glob
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import product
from operator import add
from pathlib import Path

import numpy as np
import PIL.Image
from torch import Tensor

from ..model import Model, tqdm
from .console import stop_signals
from .machine import load_model
from .metrics import psnr, ssim
from .photographs import find_photographs, tell_skipped, walk
from .pictures import FORMATS, Picture, by_name, read_picture, upright, write_picture
from .sources import SHIFT, shift_between

GAP = 8  # white pixels between the halves of a comparison


def denoise(
    inputs: list[str],
    output: Path | None = None,
    *,
    weights: Path | None = None,
    burst: bool = False,
    compare: bool = False,
    clean: Path | None = None,
    force: bool = False,
    skip_existing: bool = False,
    device: str | None = None,
) -> None:
    """Denoise pictures with `bestmodel.pth`, or with the model in `weights`.

    inputs: files, folders (every picture in them, at any depth) and glob patterns.
    output: a file, where `inputs` is one file and this name ends as a picture's does; else a folder, in which
        each keeps its name, and its place where a folder was named. By default NAME.denoised.EXT beside each.
    burst: all inputs are shots of one scene, nothing moved: the mean of their answers is written, as the
        answer to the first.
    compare: also write NAME.compare.png, noisy and denoised side by side, upright and of 8 bits.
    clean: the clean picture, or a folder with clean ones of the same names, suffixes apart, below the folder
        that was named: print PSNR and SSIM.
    force: overwrite. skip_existing: leave out what is there already.

    A picture that cannot be read or written is named on stderr and the others are done. Raises
    `FileNotFoundError`, `FileExistsError` or `ValueError` before anything is written, and `ValueError` at the
    end where some picture failed. Ctrl-C while a picture is being written waits until it is.
    """
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
        answer = partial(_answer, load_model(weights, device), more_shots)
        _denoise_all(work, answer, compare=compare, keep=skip_existing)


def _denoise_all(
    work: list[tuple[Path, Path, Path | None]],
    answer: Callable[[Picture], Tensor],
    *,
    compare: bool,
    keep: bool,
) -> None:
    """Denoise each (source, target, clean picture); keep: leave what stands as it is."""
    written = complaints = 0
    say = tqdm.write if tqdm else print  # a line of its own, beside the bar
    try:
        for source, target, reference in tqdm(work, "denoise", unit="picture") if tqdm else work:
            try:
                picture = read_picture(source)
                denoised = picture.with_values(answer(picture))
                with stop_signals() as stopped:
                    if not (keep and target.exists()):
                        write_picture(denoised, target)
                    written += 1
                if stopped:
                    raise KeyboardInterrupt
                if compare and not (keep and _comparison(target).exists()):
                    write_picture(_side_by_side(picture, denoised), _comparison(target))
                if reference:
                    say(f"{source}: {_scores(picture, denoised, read_picture(reference))}")
            except Exception as error:  # a stranger's file: no decoder or encoder may end the rest
                complaints += 1
                say(str(error) if str(source) in str(error) else f"{source}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        told = f"{written} of {len(work)} pictures are written; --skip-existing goes on with the others"
        raise KeyboardInterrupt(told) from None
    _sum_up(len(work), written, complaints)


def _sum_up(number: int, written: int, complaints: int) -> None:
    """Raise `ValueError` where a picture was not written, or not compared or scored as was asked."""
    failed = number - written
    told = [f"{failed} of {number} pictures failed"] if failed else []
    if complaints > failed:
        told.append(f"{complaints - failed} of {number} are written, but not compared or scored")
    if told:
        raise ValueError("; ".join(told))


def _answer(model: Model, more_shots: list[Path], picture: Picture) -> Tensor:
    """The denoised picture, 1×3×H×W, or the mean with the answers to more shots of the same scene."""
    with warnings.catch_warnings():  # a dark picture looks like [0, 1], and is not
        warnings.simplefilter("ignore")
        answer = model.predict(picture.tensor())
        for path in more_shots:
            answer += model.predict(_read_shot(path, picture).tensor())
    return answer / (1 + len(more_shots))


def _read_shot(path: Path, first: Picture) -> Picture:
    """Another shot of the scene; warns where something moved. Raises `ValueError` where it is another kind of
    picture."""
    shot = read_picture(path)
    expected, found = (
        (*each.pixels.shape, str(each.pixels.dtype), each.kept.get("orientation", 1))
        for each in (first, shot)
    )
    if found != expected:
        words = "H×W×channels, type and orientation"
        raise ValueError(f"{path}: expected the first shot's {words}, {expected}, got {found}")
    rows, columns = shift_between(first.tensor(), shot.tensor())
    if max(abs(rows), abs(columns)) >= SHIFT:
        told = f"shifted by {rows:+.1f} rows and {columns:+.1f} columns against the first shot"
        print(f"warning: {path}: {told}; the mean of both is blurred", file=sys.stderr)
    return shot


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


def _scores(noisy: Picture, denoised: Picture, clean: Picture) -> str:
    """PSNR and SSIM against the clean picture, before and after."""
    before, after, target = (each.tensor() for each in (noisy, denoised, clean))
    if noisy.kept.get("orientation", 1) != clean.kept.get("orientation", 1):
        raise ValueError("--clean: its EXIF orientation is another than the noisy picture's")
    if clean.pixels.shape[2] < noisy.pixels.shape[2]:
        raise ValueError("--clean: grey, expected colours as the noisy picture has")
    if target.shape != before.shape:
        raise ValueError(
            f"--clean: {'×'.join(map(str, clean.pixels.shape[:2]))} pixels, expected those of the "
            f"noisy picture, {'×'.join(map(str, noisy.pixels.shape[:2]))}"
        )
    return (
        f"PSNR {psnr(before, target).item():.2f} -> {psnr(after, target).item():.2f} dB, "
        f"SSIM {ssim(before, target).item():.3f} -> {ssim(after, target).item():.3f}"
    )


def _side_by_side(noisy: Picture, denoised: Picture) -> Picture:
    """Both in one 8-bit RGB picture, upright, a gap between them; alpha is left out."""
    left, right = (upright(each) for each in (noisy, denoised))
    gap = np.full((len(left), GAP, 3), 255, np.uint8)
    profile = noisy.kept.get("icc_profile") if noisy.pixels.shape[2] == 3 else None  # a grey one fits no RGB
    return Picture(np.hstack([left, gap, right]), None, {"icc_profile": profile} if profile else {})
