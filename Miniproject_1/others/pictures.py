"""Picture files read and written with all that they hold: their planes, numbers, alpha, and descriptions."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import imagecodecs
import numpy as np
import PIL.Image
import tifffile
import torch
from torch import Tensor

from ..model import COLOURS, atomic_write
from . import described
from .described import ORIENTATION
from .photographs import find_photographs, refuse_bomb, refuse_pixels
from .tiff import Pages, Tiff, other_tags
from .tiff import described as tiff_description

FORMATS = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jxl": "JPEG XL",
    ".npy": "NPY",
}
PILLOWS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
NO_ALPHA = ("JPEG", "BMP", "NPY")
# What numbers each format holds, by NumPy's letters.
TYPES = dict.fromkeys(PILLOWS, "B") | {"PNG": "BH", "JPEG XL": "BHef"}
TYPES |= dict.fromkeys(("TIFF", "NPY"), "bBhHiIlLqQefd")


Bounds = tuple[Any, Any]  # the smallest and the largest number, of all channels or of each


class Picture(NamedTuple):
    """A picture, or one plane of a file of many: what is denoised, and what is only kept."""

    pixels: np.ndarray  # H×W×C, integers or floating point: grey, RGB, or other channels
    alpha: np.ndarray | None  # H×W×1 or more, of the same type
    kept: dict[str, Any]  # what describes it, as in described.py
    colours: bool = True  # whether the first three of three or more channels are red, green and blue
    bits: int | None = None  # of an unsigned type, where they are fewer than its own: 12 of 16

    @property
    def bounds(self) -> Bounds:
        """The numbers that become 0 and 255: of 8 bits the type's, of others each of the groups' own.

        A microscope's counts of 100 to 500 fill little of 16 bits, and would all be black.
        """
        if self.pixels.dtype == np.uint8:
            return 0, 2 ** (self.bits or 8) - 1
        low, high = np.zeros((2, self.pixels.shape[2]))
        for group in self.groups:
            low[group], high[group] = self.pixels[:, :, group].min(), self.pixels[:, :, group].max()
        if not np.isfinite([low, high]).all():
            raise ValueError("NaN or infinity among its numbers")
        return low, np.where(high > low, high, low + 1)

    @property
    def groups(self) -> list[slice]:
        """The channels that are denoised together: the three colours, and each other one alone."""
        channels = self.pixels.shape[2]
        colours = COLOURS if self.colours and channels >= COLOURS else 0
        return [slice(0, colours)] * (colours > 0) + [slice(i, i + 1) for i in range(colours, channels)]

    @property
    def nominal_bounds(self) -> Bounds | None:
        """The numbers between which PSNR is measured: the type's, of unsigned integers up to 16 bits."""
        few = self.pixels.dtype.kind == "u" and self.pixels.itemsize <= 2
        return (0, 2 ** (self.bits or 8 * self.pixels.itemsize) - 1) if few else None

    def tensor(self, rows: slice = slice(None), bounds: Bounds | None = None) -> Tensor:
        """N×3×H×W `float32`, one for each of the groups; grey has three equal channels.

        In [0, 255], which stands for `bounds`, by default the picture's.
        """
        low, high = bounds or self.bounds
        pixels = self.pixels[rows]
        exact: np.ndarray = pixels.astype(np.float32 if pixels.itemsize <= 2 else np.float64)
        scaled = ((exact - low) / ((high - low) / 255)).astype(np.float32)
        values = torch.from_numpy(scaled).permute(2, 0, 1)
        return torch.stack([values[group].expand(3, -1, -1) for group in self.groups])

    def with_values(self, values: Tensor, bounds: Bounds | None = None) -> Picture:
        """The same picture with its pixels from what `tensor` gives; grey becomes the channels' mean."""
        low, high = bounds or self.bounds
        parts = [
            each if group.stop - group.start == COLOURS else each.mean(0, keepdim=True)
            for each, group in zip(values, self.groups, strict=True)
        ]
        dtype = self.pixels.dtype
        exact = torch.cat(parts).permute(1, 2, 0).numpy()
        exact = exact.astype(np.float32 if dtype.itemsize <= 2 else np.float64)
        pixels: np.ndarray = exact * ((high - low) / 255) + low
        if dtype.kind in "ui":
            limits = np.iinfo(dtype)
            pixels = pixels.round().clip(limits.min, limits.max)
        return self._replace(pixels=pixels.astype(dtype))


@dataclass
class PictureFile:
    """An opened picture file. Iterating reads its planes, one at a time."""

    path: Path
    kind: str  # of the values of FORMATS
    sizes: list[tuple[int, int]]  # (width, height) of each plane
    read: Callable[[int], Picture]
    # Writes all planes in the layout that they have here; None: as single pictures are written.
    write: Callable[[Iterator[Picture], IO[bytes]], None] | None = None
    notes: list[str] = field(default_factory=list)  # what is left out, or was taken for what

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, plane: int) -> Picture:
        with _named(self.path):
            return self.read(plane)

    def __iter__(self) -> Iterator[Picture]:
        return map(self.__getitem__, range(len(self)))


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


def read_picture(path: Path, *, large: bool = False) -> Picture:
    """Read a file that holds a single picture.

    Palettes become RGB and CMYK does too, and one bit becomes eight. Pixels are not turned as an EXIF
    orientation asks: it is kept. Raises as `open_picture` does, and `ValueError` for several planes.
    """
    with open_picture(path, large=large) as file:
        if len(file) > 1:
            raise ValueError(f"{path}: {len(file)} planes, expected a single picture")
        return next(iter(file))


@contextmanager
def open_picture(path: Path, *, large: bool = False) -> Iterator[PictureFile]:
    """Open a picture file; its planes are read as they are asked for.

    large: also planes of more than 89 million pixels.
    Raises `OSError` where it may not be read and `ValueError` where it is no such picture: damaged, of a
    format or a kind of numbers that is not read, or so large that it looks like a decompression bomb.
    """
    with ExitStack() as stack:
        if large:
            stack.enter_context(_no_limit())
        with _named(path):
            with path.open("rb") as content:
                head = content.read(12)
            opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), _of_pillow)
            file = opener(path, stack, large)
        yield file


def keeps_layout(file: PictureFile, path: Path) -> bool:
    """Whether what is written to `path` has all that `file` has, planes and descriptions."""
    return file.write is not None and FORMATS.get(path.suffix.lower()) == file.kind


def left_out(file: PictureFile, picture: Picture, path: Path) -> list[str]:
    """What somebody should know of a file that is written to `path`: what is left out, a line each."""
    kind = FORMATS.get(path.suffix.lower(), "")
    missing = [] if keeps_layout(file, path) else described.left_out(picture.kept, kind)
    return file.notes + (
        [f"left out, as {kind} has no place for it: {', '.join(missing)}"] if missing else []
    )


def write_pictures(file: PictureFile, pictures: Iterator[Picture], path: Path) -> None:
    """Write the planes of `file`, changed, to `path`, whole or not at all: in their own layout where the
    format is the same. Raises as `refuse` does."""
    first = next(pictures)  # before anything is made
    if keeps_layout(file, path):
        with atomic_write(path) as content:
            assert file.write is not None
            file.write(chain([first], pictures), content)
    else:
        write_picture(first, path)


def refuse(file: PictureFile, picture: Picture, path: Path) -> None:
    """Raise `ValueError` where the format that the name of `path` asks for cannot hold the picture."""
    if keeps_layout(file, path):
        return
    if len(file) > 1:
        raise ValueError(f"{path}: {len(file)} planes are written as {file.kind} only, as they came")
    _refuse(picture, path)


def _refuse(picture: Picture, path: Path) -> None:
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    channels, dtype, what = picture.pixels.shape[2], picture.pixels.dtype, None
    alpha = 0 if picture.alpha is None else picture.alpha.shape[2]
    if dtype.char not in TYPES[kind]:
        what = {"B": "8 bits", "H": "16 bits"}.get(dtype.char, f"numbers of type {dtype}")
    elif picture.bits and kind != "TIFF":
        what = f"{picture.bits} bits"
    elif kind != "TIFF" and alpha > (kind not in NO_ALPHA):
        what = "alpha"
    elif kind != "TIFF" and channels != 1 and not (picture.colours and channels == COLOURS):
        what = f"{channels} channels that are no colours"
    if what:
        raise ValueError(f"{path}: {kind} cannot hold {what}; TIFF can")


def write_picture(picture: Picture, path: Path) -> None:
    """Write it in the format that the name of `path` asks for, whole or not at all.

    Raises `ValueError` where that format cannot hold it: 16 bits or alpha in a JPEG, 16 bits in a WebP,
    floating point in a PNG.
    """
    _refuse(picture, path)
    kind = FORMATS[path.suffix.lower()]
    if kind == "TIFF":
        with atomic_write(path) as file:
            _write_tiff(iter([picture]), file)
        return
    encode = {"PNG": _png, "JPEG XL": _jpegxl, "NPY": _npy}.get(kind) or partial(_with_pillow, kind)
    content = encode(picture)
    with atomic_write(path) as file:
        file.write(content)


def write_pixels(image: Tensor, path: Path) -> None:
    """Write 3×H×W `uint8`, as `write_picture` does."""
    write_picture(Picture(image.permute(1, 2, 0).numpy(), None, {}), path)


def upright(picture: Picture, bounds: Bounds | None = None) -> np.ndarray:
    """H×W×3 `uint8`, turned as the orientation asks; of channels that are no colours, the first.

    bounds: what is black and white, by default as `Picture.tensor` has it.
    """
    values = picture.tensor(bounds=bounds)[0].permute(1, 2, 0).round().to(torch.uint8)
    return _turned(values.numpy(), picture.kept)


def _turned(pixels: np.ndarray, kept: dict[str, Any]) -> np.ndarray:
    """H×W×C as the orientation asks: rows and columns change places, and run the other way."""
    orientation = kept.get("orientation", 1)
    rows, columns = (-1 if orientation in each else 1 for each in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray((pixels.swapaxes(0, 1) if orientation > 4 else pixels)[::rows, ::columns])


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Within, whatever a decoder finds wrong is a `ValueError` that names the file."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
        raise
    except Exception as error:  # a stranger's file
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def _no_limit() -> Iterator[None]:
    """Within, Pillow takes pictures of any size."""
    most, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = most


def _samples(picture: Picture) -> np.ndarray:
    """H×W×C, alpha behind the channels."""
    return picture.pixels if picture.alpha is None else np.concatenate([picture.pixels, picture.alpha], 2)


# ------------------------------------------------------------------------------------------------
# PNG, JPEG, WebP, GIF, BMP


def _of_pillow(path: Path, stack: ExitStack, large: bool) -> PictureFile:
    image = stack.enter_context(PIL.Image.open(path))
    photograph = image.format == "MPO"  # a camera's JPEG with others behind it
    kind = "JPEG" if photograph else image.format
    if kind not in PILLOWS:
        raise ValueError(f"{kind} is not one of {', '.join(dict.fromkeys(FORMATS.values()))}")
    refuse_bomb(image, large=large)
    frames, deep = getattr(image, "n_frames", 1), kind == "PNG" and _png_depth(path) == 16
    file = PictureFile(path, kind, [image.size], lambda _: _read_still(image, path, deep))
    if image.mode == "CMYK" and "icc_profile" in image.info:
        file.notes.append("left out: the colour profile of its inks, as RGB is written")
    if photograph and frames > 1:
        file.notes.append(f"left out: {frames - 1} behind the picture, such as a preview")
    elif frames > 1:
        if deep:
            raise ValueError(f"{frames} frames of 16 bits: no library at hand writes such")
        refuse_pixels(image.width, image.height * frames, large=large)  # the encoder holds all of them
        file.sizes *= frames
        durations: dict[int, float] = {}
        file.read = lambda plane: _read_frame(image, path, plane, durations)
        file.write = lambda pictures, out: _write_animation(image, pictures, durations, out)
    return file


def _read_still(image: PIL.Image.Image, path: Path, deep: bool) -> Picture:
    kept, orientation = described.of_pillow(image, path), image.getexif().get(ORIENTATION)
    if deep:  # Pillow would drop half of the bits
        # libpng decodes what the header promises and no more, however much a file goes on to.
        array = imagecodecs.png_decode(path.read_bytes())
    elif image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of mode {image.mode}, expected 8 or 16 bits a channel")
    else:
        grey = image.mode in ("1", "L", "LA", "La")
        mode = ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")
        array = np.asarray(image if image.mode == mode else image.convert(mode))
    array = array.reshape(image.height, image.width, -1)
    return _picture(array, described.clean(kept, orientation))


def _picture(array: np.ndarray, kept: dict[str, Any]) -> Picture:
    """Of grey or RGB samples, perhaps with alpha behind them."""
    alpha = array.shape[2] in (2, 4)
    return Picture(array[:, :, :-1], array[:, :, -1:], kept) if alpha else Picture(array, None, kept)


def _read_frame(image: PIL.Image.Image, path: Path, plane: int, durations: dict[int, float]) -> Picture:
    """As it is shown; grey where all of its pixels are."""
    image.seek(plane)
    array = np.asarray(image.convert("RGBA"))
    durations[plane] = image.info.get("duration", 0)
    kept = described.of_pillow(image, path) if plane == 0 else {}
    pixels, alpha = array[:, :, :3], array[:, :, 3:]
    if (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, :1]
    kept = described.clean(kept, image.getexif().get(ORIENTATION))
    return Picture(pixels, None if (alpha == 255).all() else alpha, kept)


def _write_animation(
    image: PIL.Image.Image, pictures: Iterator[Picture], durations: dict[int, float], file: IO[bytes]
) -> None:
    """The frames with the times that `image` shows them for. Pillow holds all of them."""
    first = next(pictures)
    frames = [
        _image(each).convert("RGB" if each.alpha is None else "RGBA") for each in chain([first], pictures)
    ]
    kind, options = image.format or "", dict[str, Any](duration=list(durations.values()))
    if "loop" in image.info:
        options["loop"] = image.info["loop"]
    if kind == "PNG":
        options["default_image"] = image.default_image
        if image.default_image:  # shown only where animations are not, so for no time
            del options["duration"][0]
    elif kind == "GIF" and any(frame.mode == "RGBA" for frame in frames):
        options["disposal"] = 2  # what is under a frame would show through it
    if kind != "PNG":
        options |= _pillows(kind, first.kept)
    content = io.BytesIO()
    frames[0].save(content, kind, save_all=True, append_images=frames[1:], **options)
    file.write(
        described.with_chunks(content.getvalue(), first.kept) if kind == "PNG" else content.getbuffer()
    )


def _image(picture: Picture) -> PIL.Image.Image:
    array = _samples(picture)
    return PIL.Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)


def _with_pillow(kind: str, picture: Picture) -> bytes:
    """A JPEG, WebP, GIF or BMP."""
    file, image = io.BytesIO(), _image(picture)
    if kind == "GIF" and image.mode == "LA":
        image = image.convert("RGBA")  # Pillow would drop the alpha
    image.save(file, kind, **_pillows(kind, picture.kept))
    content = bytearray(file.getbuffer())
    if kind == "JPEG" and "density" in picture.kept:
        # Pillow writes no ratio without a unit. Its first segment is JFIF's, and this is its place in that.
        content[13:18] = struct.pack(">BHH", *map(int, picture.kept["density"]))
    return bytes(content)


def _pillows(kind: str, kept: dict[str, Any]) -> dict[str, Any]:
    """The options with which Pillow writes what describes a picture."""
    options: dict[str, Any] = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    if kind == "JPEG" and "JPEG" in kept:
        return options | {"extra": kept["JPEG"]}
    if kind in ("JPEG", "WEBP"):
        options |= {"icc_profile": kept.get("icc_profile"), "xmp": kept.get("xmp")}
        options["exif"] = described.exif(kept, resolution=kind == "WEBP")
    if kind == "WEBP":
        options["lossless"] = kept.get("lossless")
    if kind in ("JPEG", "BMP"):
        options["dpi"] = kept.get("dpi")
    if kind in ("JPEG", "GIF"):
        options["comment"] = described.comment(kept).encode()
    return {key: value for key, value in options.items() if value}


def _png_depth(path: Path) -> int:
    """Bits a channel, from the header."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _png(picture: Picture) -> bytes:
    array = np.ascontiguousarray(_samples(picture))
    array = array.squeeze(2) if array.shape[2] == 1 else array
    return described.with_chunks(imagecodecs.png_encode(array), picture.kept)


# ------------------------------------------------------------------------------------------------
# TIFF


def _of_tiff(path: Path, stack: ExitStack, large: bool) -> PictureFile:
    opened = stack.enter_context(tifffile.TiffFile(path))
    for page in opened.pages:
        refuse_pixels(page.imagewidth, page.imagelength, large=large)
        refuse_pixels(page.tilewidth, page.tilelength, large=large)  # they can be larger than the picture
        samples = -(-page.samplesperpixel // 4) * page.imagedepth
        refuse_pixels(page.imagewidth, page.imagelength * samples, large=large)  # a page is read at once
    tiff = Tiff(opened)
    sizes = [(page.imagewidth, page.imagelength) for page, _ in tiff.planes]
    file = PictureFile(path, "TIFF", sizes, lambda plane: _read_plane(tiff, plane))
    if tiff.can_copy:
        file.write = lambda pictures, out: tiff.copy_with(((p.pixels, p.alpha) for p in pictures), out)
    elif any(page.subifds for page in tiff.pages):
        raise ValueError("pages below pages, of a kind that cannot be written back")
    else:
        big = sum(page.nbytes for page, _ in tiff.planes) > 2**31
        file.write = lambda pictures, out: _write_tiff(pictures, out, big=big)
        names = dict.fromkeys(name for page in tiff.pages for name in other_tags(page))
        file.notes += [f"left out: {', '.join(names)}"] if names else []
    if any(map(tiff.is_stack, tiff.pages)):
        file.notes.append("taken for a stack, as tifffile writes it by default, though it is tagged as RGB")
    return file


def _read_plane(tiff: Tiff, plane: int) -> Picture:
    page, _ = tiff.planes[plane]
    pixels, alpha, colours = tiff.read(plane)
    kept = tiff_description(tiff.file, page)
    kept = described.clean(kept, kept["orientation"])
    packed = page.dtype.kind == "u" and page.bitspersample < page.dtype.itemsize * 8
    return Picture(pixels, alpha, kept, colours, page.bitspersample if packed else None)


def _write_tiff(pictures: Iterator[Picture], file: IO[bytes], *, big: bool = False) -> None:
    pages = Pages(file, big=big)
    for picture in pictures:
        alpha = 0 if picture.alpha is None else picture.alpha.shape[2]
        rgb = picture.colours and picture.pixels.shape[2] >= COLOURS
        pages.add(_samples(picture), picture.kept, rgb=rgb, alpha=alpha, bits=picture.bits)
    pages.close()


# ------------------------------------------------------------------------------------------------
# JPEG XL and NumPy's arrays


def _of_jpegxl(path: Path, stack: ExitStack, large: bool) -> PictureFile:
    content = path.read_bytes()
    boxes = list(described.boxes(content))
    parts = [data for name, data in boxes if name == b"jxlc"]
    parts += [data[4:] for name, data in boxes if name == b"jxlp"]  # behind the part's number
    width, height = described.jpegxl_size(parts[0] if parts else content)
    refuse_pixels(width, height, large=large)
    array = imagecodecs.jpegxl_decode(content)
    if {width, height} != set(array.shape[:2]) or array.ndim > 3:
        raise ValueError(f"{len(array)} frames: no library at hand writes such a JPEG XL")
    array = array.reshape(*array.shape[:2], -1)
    kept = described.of_boxes(boxes)
    file = PictureFile(path, "JPEG XL", [array.shape[1::-1]], lambda _: _picture(array, kept))
    file.notes.append("left out: the colour profile, if it has one other than sRGB")
    return file


def _jpegxl(picture: Picture) -> bytes:
    """Without loss, as what else it holds; upright, as its decoders heed no EXIF."""
    array = _turned(_samples(picture), picture.kept)
    array = array.squeeze(2) if array.shape[2] == 1 else array
    boxes = described.jpegxl_boxes(picture.kept)
    content = imagecodecs.jpegxl_encode(array, lossless=True, usecontainer=bool(boxes))
    return bytes(content) + b"".join(described.box(name, data) for name, data in boxes)


def _of_npy(path: Path, stack: ExitStack, large: bool) -> PictureFile:
    """H×W, H×W×1, H×W×3, N×H×W, N×H×W×1 or N×H×W×3."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = "×".join(map(str, array.shape))
    if array.dtype.kind not in "uif":
        raise ValueError(f"{shape} numbers of type {array.dtype}, expected integers or floating point")
    if not array.size:
        raise ValueError(f"{shape}: no pixels")
    if array.ndim == 3 and array.shape[2] in (2, 4):
        raise ValueError(f"{shape}: planes, or alpha? expected H×W, H×W×3, N×H×W or N×H×W×3")
    channels = array.shape[-1:] if array.ndim > 2 and array.shape[-1] in (1, COLOURS) else ()
    if array.ndim - len(channels) not in (2, 3):
        raise ValueError(f"{shape}: expected H×W, H×W×3, N×H×W or N×H×W×3")
    planes = array.reshape(-1, *array.shape[array.ndim - len(channels) - 2 :])
    height, width = planes.shape[1:3]
    refuse_pixels(width, height, large=large)

    def read(plane: int) -> Picture:
        pixels = planes[plane].astype(array.dtype.newbyteorder("="))
        return Picture(pixels.reshape(height, width, -1), None, {})

    def write(pictures: Iterator[Picture], file: IO[bytes]) -> None:
        header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for picture in pictures:
            file.write(picture.pixels.astype(array.dtype).tobytes())

    return PictureFile(path, "NPY", [(width, height)] * len(planes), read, write)


def _npy(picture: Picture) -> bytes:
    file, pixels = io.BytesIO(), picture.pixels
    np.save(file, pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    return file.getvalue()


def _of_exr(path: Path, stack: ExitStack, large: bool) -> PictureFile:
    raise ValueError("OpenEXR is not read: imagecodecs as PyPI has it brings no decoder for it")


OPENERS: dict[bytes, Callable[[Path, ExitStack, bool], PictureFile]] = {
    b"II*\0": _of_tiff,
    b"MM\0*": _of_tiff,
    b"II+\0": _of_tiff,
    b"MM\0+": _of_tiff,
    b"\x93NUMPY": _of_npy,
    b"\xff\x0a": _of_jpegxl,
    b"\0\0\0\x0cJXL ": _of_jpegxl,
    b"v/1\x01": _of_exr,
}  # by the first bytes; all others are Pillow's
