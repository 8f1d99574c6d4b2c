"""Picture files read and written with all that they hold: bit depth, grey, alpha, profile, orientation."""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageOps
import png
import tifffile
import torch
from torch import Tensor

from ..model import atomic_write
from .photographs import find_photographs, refuse_bomb

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
ORIENTATION = 274  # EXIF's and TIFF's number for it


class Picture(NamedTuple):
    """A picture file: what is denoised, and what is only kept."""

    pixels: np.ndarray  # H×W×C, C = 1 grey or 3 RGB, uint8 or uint16
    alpha: np.ndarray | None  # H×W×1, of the same type
    kept: dict[str, Any]  # icc_profile, exif, orientation: what the file has of them

    @property
    def scale(self) -> int:
        """Of the pixels, against values in [0, 255]."""
        return 257 if self.pixels.dtype == np.uint16 else 1

    def tensor(self) -> Tensor:
        """1×3×H×W `float32` in [0, 255]; grey is the same in all three channels."""
        values = torch.from_numpy(self.pixels.astype(np.float32) / self.scale)
        return values.permute(2, 0, 1).expand(3, -1, -1).unsqueeze(0)

    def with_values(self, values: Tensor) -> Picture:
        """The same picture with its pixels from 1×3×H×W in [0, 255]; grey becomes the channels' mean."""
        pixels = values[0].permute(1, 2, 0)
        pixels = pixels.mean(2, keepdim=True) if self.pixels.shape[2] == 1 else pixels
        return self._replace(pixels=(pixels * self.scale).round().numpy().astype(self.pixels.dtype))


def by_name(folder: Path, skipped: Counter[str] | None = None) -> dict[str, Path]:
    """The pictures under `folder` by their names below it, suffixes apart; `skipped` as `find_photographs`
    takes it. Raises `ValueError` where there is none, or two of one name."""
    found = find_photographs(folder, FORMATS, skipped)
    named = {str(path.relative_to(folder).with_suffix("")): path for path in found}
    if not found:
        raise ValueError(f"{folder}: holds no picture")
    if len(named) < len(found):
        one, *_ = (path for path in found if path not in named.values())
        other = named[str(one.relative_to(folder).with_suffix(""))]
        raise ValueError(f"{folder}: {one.name} and {other.name} have one name, suffixes apart")
    return named


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file, from its header. Raises as `read_picture` does."""
    with _opened(path) as image:
        return image.size


def read_picture(path: Path) -> Picture:
    """Read a PNG, JPEG, WebP or TIFF file of 8 or 16 bits, grey or colour, with or without alpha.

    Palettes become RGB and CMYK does too. Pixels are not turned as an EXIF orientation asks: it is kept.
    Raises `OSError` where it may not be read and `ValueError` where it is no such picture: damaged, of
    several frames, of 32 bits, or so large that it looks like a decompression bomb.
    """
    with _opened(path) as image:
        kept = {key: image.info.get(key) for key in ("icc_profile", "exif")}
        orientation = image.getexif().get(ORIENTATION)
        if image.mode == "CMYK":
            kept["icc_profile"] = None  # it describes inks, and what is written is RGB
        if image.format == "PNG" and _png_depth(path) == 16:  # Pillow would drop half of the bits
            array = _read_png16(path)
        elif image.format == "TIFF" and set(image.tag_v2.get(258, (1,))) == {16}:
            array = _read_tiff16(path)
        elif image.mode.startswith(("I", "F")):
            raise ValueError("32 bits a channel: only 8 and 16 are denoised")
        else:
            grey = image.mode in ("1", "L", "LA", "La")
            mode = ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")
            array = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
            orientation = image.getexif().get(ORIENTATION)  # Pillow has turned a TIFF by now
    if orientation in range(2, 9):
        kept["orientation"] = orientation
    # A stranger's file can have anything under these names.
    kept = {key: value for key, value in kept.items() if value and isinstance(value, (bytes, int))}
    if array.shape[2] in (2, 4):
        return Picture(array[:, :, :-1], array[:, :, -1:], kept)
    return Picture(array, None, kept)


def upright(picture: Picture) -> np.ndarray:
    """H×W×3 `uint8`, turned as the orientation asks."""
    values = picture.tensor()[0].permute(1, 2, 0).round().to(torch.uint8)
    image = PIL.Image.fromarray(values.numpy())
    image.getexif()[ORIENTATION] = picture.kept.get("orientation", 1)
    return np.array(PIL.ImageOps.exif_transpose(image))


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    """The file as Pillow opens it, checked; within, whatever a decoder finds wrong is a `ValueError`."""
    try:
        with PIL.Image.open(path) as image:
            photograph = image.format == "MPO"  # a camera's JPEG with a preview behind it
            if image.format not in FORMATS.values() and not photograph:
                raise ValueError(f"{image.format} is not one of {', '.join(dict.fromkeys(FORMATS.values()))}")
            refuse_bomb(image)
            if getattr(image, "n_frames", 1) > 1 and not photograph:
                raise ValueError(f"{image.n_frames} frames: only single pictures are denoised")
            yield image
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # a stranger's file
        raise ValueError(f"{path}: {error}") from error


def write_picture(picture: Picture, path: Path) -> None:
    """Write it in the format that the name of `path` asks for, whole or not at all.

    Raises `ValueError` where that format cannot hold it: 16 bits or alpha in a JPEG, 16 bits in a WebP; or
    where Pillow could not read it back: grey of 16 bits with alpha in a TIFF.
    """
    kind = FORMATS.get(path.suffix.lower())
    deep = picture.pixels.dtype == np.uint16
    if kind is None:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    if (deep and kind in ("JPEG", "WEBP")) or (picture.alpha is not None and kind == "JPEG"):
        raise ValueError(f"{path}: {kind} cannot hold {'16 bits' if deep else 'alpha'}; PNG and TIFF can")
    if deep and kind == "TIFF" and picture.alpha is not None and picture.pixels.shape[2] == 1:
        raise ValueError(f"{path}: grey of 16 bits with alpha: few programs read that from a TIFF; PNG can")
    parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
    array = np.concatenate(parts, axis=2)
    content = io.BytesIO()
    if kind == "TIFF":
        _write_tiff(array, picture.kept, content)
    elif deep:
        _write_png16(array, picture.kept, content)
    else:
        image = PIL.Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
        kept = {"icc_profile": picture.kept.get("icc_profile"), "exif": _exif(picture.kept)}
        kept = {key: value for key, value in kept.items() if value}
        quality = {} if kind == "PNG" else {"quality": 95}
        image.save(content, kind, **kept, **quality)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def _png_depth(path: Path) -> int:
    """Bits a channel, from the header."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _read_png16(path: Path) -> np.ndarray:
    # libpng decodes what the header promises and no more, however much a file goes on to.
    array = imagecodecs.png_decode(path.read_bytes())
    return array.reshape(*array.shape[:2], -1)


def _write_png16(array: np.ndarray, kept: dict[str, Any], file: io.BytesIO) -> None:
    height, width, planes = array.shape
    writer = png.Writer(width, height, greyscale=planes < 3, alpha=planes in (2, 4), bitdepth=16)
    plain = io.BytesIO()
    writer.write_packed(plain, (row.astype(">u2").tobytes() for row in array))
    chunks = list(png.Reader(bytes=plain.getvalue()).chunks())
    # What pypng does not write itself goes where the standard wants it, right behind the header.
    if "icc_profile" in kept:
        chunks.insert(1, (b"iCCP", b"profile\0\0" + zlib.compress(kept["icc_profile"])))
    if exif := _exif(kept):
        chunks.insert(1, (b"eXIf", exif.removeprefix(b"Exif\0\0")))
    png.write_chunks(file, chunks)


def _read_tiff16(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        if page.axes not in ("YX", "YXS") or page.photometric.name not in ("MINISBLACK", "RGB"):
            raise ValueError(f"16 bits as {page.photometric.name}, {page.axes}: not supported")
        array = page.asarray()
        array = array.reshape(*array.shape[:2], -1)
        if array.dtype != np.uint16:
            raise ValueError(f"{array.dtype} numbers: of 16 bits, only unsigned ones are denoised")
        if array.shape[2] > 4:
            raise ValueError(f"{array.shape[2]} channels: only grey and RGB are denoised, and alpha kept")
        if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:  # colours come multiplied with alpha
            share = np.maximum(array[:, :, -1:], 1) / 65535
            colours = np.round(array[:, :, :-1] / share).clip(0, 65535)
            array = np.concatenate([colours.astype(np.uint16), array[:, :, -1:]], axis=2)
        return array


def _write_tiff(array: np.ndarray, kept: dict[str, Any], file: io.BytesIO) -> None:
    planes = array.shape[2]
    tags = [(ORIENTATION, "H", 1, kept["orientation"], True)] if "orientation" in kept else []
    tifffile.imwrite(
        file,
        array.squeeze(2) if planes == 1 else array,
        photometric="rgb" if planes > 2 else "minisblack",
        planarconfig="contig" if planes > 1 else None,
        extrasamples=["unassalpha"] if planes in (2, 4) else None,
        compression="zlib",
        iccprofile=kept.get("icc_profile"),
        extratags=tags,
        metadata=None,
    )


def _exif(kept: dict[str, Any]) -> bytes | None:
    """The file's own EXIF, or else one that says nothing but the orientation, or none."""
    if "exif" in kept or "orientation" not in kept:
        return kept.get("exif")
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = kept["orientation"]
    return exif.tobytes()
