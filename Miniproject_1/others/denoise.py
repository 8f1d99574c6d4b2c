"""Denoise picture files."""

import glob
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image

from ..model import tqdm
from .machine import load_model
from .metrics import psnr, ssim
from .photographs import find_photographs
from .pictures import FORMATS, Picture, by_name, read_picture, upright, write_picture

GAP = 8  # white pixels between the halves of a comparison


def denoise(
    inputs: list[str],
    output: Path,
    *,
    weights: Path | None = None,
    compare: bool = False,
    clean: Path | None = None,
    force: bool = False,
    device: str | None = None,
) -> None:
    """Denoise pictures with `bestmodel.pth`, or with the model in `weights`.

    inputs: files, folders (every picture in them, at any depth) and glob patterns.
    output: a file, where `inputs` is one file and this name ends as a picture's does; else a folder, in which
        each keeps its name, and its place where a folder was named.
    compare: also write NAME.compare.png, noisy and denoised side by side, upright and of 8 bits.
    clean: the clean picture, or a folder with clean ones of the same names, suffixes apart, below the folder
        that was named: print PSNR and SSIM.
    force: overwrite.

    A picture that cannot be read or written is named on stderr and the others are done. Raises
    `FileNotFoundError`, `FileExistsError` or `ValueError` before anything is written, and `ValueError` at the
    end where some picture failed.
    """
    found = _find(inputs, output)
    references = _references([name for _, name in found], clean)
    jobs = _plan(found, references, output, compare=compare, force=force)
    model = load_model(weights, device)
    failed, say = 0, tqdm.write if tqdm else print  # a line of its own, beside the bar
    work = list(zip(jobs, references, strict=True))
    for (source, target), reference in tqdm(work, "denoise", unit="picture") if tqdm else work:
        try:
            picture = read_picture(source)
            with warnings.catch_warnings():  # a dark picture looks like [0, 1], and is not
                warnings.simplefilter("ignore")
                denoised = picture.with_values(model.predict(picture.tensor()))
            write_picture(denoised, target)
            if compare:
                write_picture(_side_by_side(picture, denoised), _comparison(target))
            if reference:
                say(f"{source}: {_scores(picture, denoised, read_picture(reference))}")
        except Exception as error:  # a stranger's file: no decoder or encoder may end the rest
            failed += 1
            say(str(error) if str(source) in str(error) else f"{source}: {error}", file=sys.stderr)
    if failed:
        raise ValueError(f"{failed} of {len(jobs)} pictures failed")


def _find(inputs: list[str], output: Path) -> list[tuple[Path, Path]]:
    """Each picture, and its name below the output folder. Raises where an input has none."""
    found: list[tuple[Path, Path]] = []
    for each in inputs:
        path = Path(each)
        if path.is_dir():
            # What was made before, in a folder below this one, is no input.
            pictures = find_photographs(path, FORMATS)
            made = output.resolve()
            pictures = [
                each for each in pictures if path.resolve() == made or not each.resolve().is_relative_to(made)
            ]
            found += [(picture, picture.relative_to(path)) for picture in pictures]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            matches = [Path(match) for match in sorted(glob.glob(each, recursive=True))]
            if not matches:
                raise FileNotFoundError(f"INPUT: {each}: no such file, folder or pattern with a match")
            found += [(match, Path(match.name)) for match in matches if match.suffix.lower() in FORMATS]
    if not found:
        raise FileNotFoundError(f"INPUT: no picture in {', '.join(inputs)}")
    return found


def _plan(
    found: list[tuple[Path, Path]],
    references: list[Path | None],
    output: Path,
    *,
    compare: bool,
    force: bool,
) -> list[tuple[Path, Path]]:
    """(source, target) of each picture. Raises where a target stands already, is read, or comes twice."""
    suffix = output.suffix.lower()
    if suffix in PIL.Image.registered_extensions() and suffix not in FORMATS and not output.is_dir():
        raise ValueError(f"OUTPUT: {output}: expected a folder or one of {', '.join(sorted(FORMATS))}")
    names_a_file = output.is_file() or (output.suffix.lower() in FORMATS and not output.is_dir())
    if names_a_file and len(found) > 1:
        raise FileExistsError(f"OUTPUT: {output} names a file, expected a folder for {len(found)} pictures")
    jobs = [(source, output if names_a_file else output / name) for source, name in found]
    written = [target for _, target in jobs]
    written += [_comparison(target) for target in written] if compare else []
    read = {path.resolve() for path in [*(source for source, _ in found), *references] if path}
    if same := next((path for path in written if path.resolve() in read), None):
        raise FileExistsError(f"{same} is read and would be replaced: name another output")
    if twice := next((path for path, times in Counter(written).items() if times > 1), None):
        both = " and ".join(str(source) for source, target in jobs if target == twice)
        raise FileExistsError(f"INPUT: {both} would both become {twice}")
    standing = [] if force else [path for path in written if path.exists()]
    if standing:
        more = f", and {len(standing) - 1} more of {len(written)}" if standing[1:] else ""
        raise FileExistsError(f"{standing[0]} is there already{more}; --force overwrites")
    return jobs


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
