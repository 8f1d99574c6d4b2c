"""TIFF files: their planes as arrays, and a copy of the file in which only the pixels are other ones."""

from __future__ import annotations

import io
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import PIL.Image
import tifffile
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, TiffFile, TiffPage

from .described import ORIENTATION, comment

# What an encoder of tifffile gives back bit for bit.
LOSSLESS = {
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.DEFLATE,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.PACKBITS,
    COMPRESSION.ZSTD,
    COMPRESSION.LZMA,
}
DESCRIPTION, XMP = 270, 700
EXIF, GPS, INTEROP = 34665, 34853, 40965
OFFSETS, COUNTS = (273, 324), (279, 325)  # of strips, of tiles
ABOUT = {271: "Make", 272: "Model", 305: "Software", 306: "DateTime", 315: "Artist", 33432: "Copyright"}
# Tags that say how the pixels are stored, or that are read one by one below.
KNOWN = {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 296, 317, 320}
KNOWN |= {322, 323, 324, 325, 330, 338, 339, 340, 341, 347, 529, 530, 531, 532, 34675, 32997}
KNOWN |= {ORIENTATION, DESCRIPTION, XMP, EXIF, GPS, *ABOUT}

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the error that follows says what is wrong


class Tiff:
    """An opened TIFF file. planes: (page, number within the page) of each, in the order of the file."""

    def __init__(self, file: TiffFile) -> None:
        """Raises `ValueError` where not all of the pixels are there."""
        self.file, self.pages = file, list(_pages(file.pages))
        self.stacked = _stacked(file)  # planes that follow one another behind the only directory
        for page in self.pages:
            self._refuse_cut(page)
        self.planes = [(page, i) for page in self.pages for i in range(self.stacked or page.imagedepth)]

    def _refuse_cut(self, page: TiffPage) -> None:
        length = self.file.filehandle.size
        ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if self.stacked:
            ends = [page.dataoffsets[0] + self.stacked * page.nbytes]
        if not ends or max(ends) > length:
            raise ValueError(f"truncated: {max(ends, default=0):,} bytes are promised, {length:,} are there")

    @property
    def can_copy(self) -> bool:
        """Whether other pixels can be written into the file's own layout."""
        return all(map(_can_encode, self.pages)) and not any(map(self._converted, self.pages))

    def is_stack(self, page: TiffPage) -> bool:
        """Whether its separate planes are no colours: tifffile tags stacks of three or four `uint8` planes
        as planar RGB(A), where it is given nothing else."""
        described: tuple[dict[str, Any], ...] = self.file.shaped_metadata or ({},)
        axes = str(described[0].get("axes", ""))
        planar = page.photometric == PHOTOMETRIC.RGB and page.shaped[0] > 1 and page.dtype == np.uint8
        return planar and self.file.is_shaped and axes[-3:-2] not in ("C", "S")

    def read(self, plane: int) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """(H×W×C, alpha as H×W×A or None, whether the first three channels are red, green and blue)."""
        page, _ = self.planes[plane]
        array = self._array(plane)
        if self._converted(page):
            return _decoded(page, array), None, True
        if page.photometric == PHOTOMETRIC.MINISWHITE and page.dtype.kind == "u":
            array = (1 << page.bitspersample) - 1 - array
        alpha = self._alpha(page)
        pixels = np.delete(array, alpha, axis=2)
        if _associated(page) and alpha:  # colours come multiplied with alpha
            most = np.iinfo(page.dtype).max
            share = np.maximum(array[:, :, alpha[:1]], 1) / most
            pixels = np.round(pixels / share).clip(0, most).astype(page.dtype)
        rgb = page.photometric == PHOTOMETRIC.RGB and not self.is_stack(page)
        return pixels, array[:, :, alpha] if alpha else None, rgb

    def _stored(self, page: TiffPage, pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
        """H×W×S as the file has it: what `read` did, undone."""
        if alpha is not None and _associated(page):
            pixels = np.round(pixels * (alpha[:, :, :1] / np.iinfo(page.dtype).max)).astype(page.dtype)
        array = np.empty((*pixels.shape[:2], page.samplesperpixel), pixels.dtype)
        places = self._alpha(page)
        array[:, :, [i for i in range(page.samplesperpixel) if i not in places]] = pixels
        if alpha is not None:
            array[:, :, places] = alpha
        if page.photometric == PHOTOMETRIC.MINISWHITE and page.dtype.kind == "u":
            array = (1 << page.bitspersample) - 1 - array
        return array

    def _alpha(self, page: TiffPage) -> list[int]:
        """Which samples the file calls alpha."""
        first = page.samplesperpixel - len(page.extrasamples)
        kinds = () if self.is_stack(page) else page.extrasamples
        return [first + i for i, kind in enumerate(kinds) if kind != EXTRASAMPLE.UNSPECIFIED]

    def _converted(self, page: TiffPage) -> bool:
        """Whether it becomes grey or RGB of 8 bits. Raises `ValueError` for what it can't become."""
        kind, samples = page.photometric, page.samplesperpixel
        if page.dtype is None or page.dtype.kind not in "buif":
            raise ValueError(f"samples of type {page.dtype or page.bitspersample} are not read")
        if kind == PHOTOMETRIC.PALETTE:  # ImageJ's is for the eye alone: its numbers are intensities
            return not self.file.is_imagej
        if kind in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE):
            return page.dtype.kind == "b"
        if kind == PHOTOMETRIC.RGB and samples >= 3:
            return False
        if page.dtype == np.uint8 and (
            (kind == PHOTOMETRIC.SEPARATED and samples == 4) or (kind == PHOTOMETRIC.YCBCR and samples == 3)
        ):
            return True
        raise ValueError(f"{page.bitspersample} bits as {kind.name} with {samples} samples are not read")

    def _array(self, plane: int) -> np.ndarray:
        """H×W×S, the samples as they are stored; RGB where they are JPEG's."""
        page, number = self.planes[plane]
        if self.stacked:
            handle = self.file.filehandle
            handle.seek(page.dataoffsets[0] + number * page.nbytes)
            stored = np.frombuffer(handle.read(page.nbytes), page.dtype.newbyteorder(self.file.byteorder))
            array = stored.astype(page.dtype)
        else:
            array = page.asarray()
        array = array.reshape(page.shaped)[:, 0 if self.stacked else number]
        # Samples lie behind one another or side by side: one of the two axes has length 1.
        return np.moveaxis(array, 0, 2).reshape(*array.shape[1:3], -1)

    def copy_with(self, planes: Iterator[tuple[np.ndarray, np.ndarray | None]], file: IO[bytes]) -> None:
        """Write to `file`, open for reading too, a copy with other pixels and alpha, as `read` gives them.

        All else stays as it is, byte for byte. What is encoded and longer than before goes to the end.
        """
        source = self.file.filehandle
        source.seek(0)
        shutil.copyfileobj(source, file)
        file.flush()
        file.seek(0)
        used: set[int] = set()  # places; two of the old tiles may have shared one
        with TiffFile(file) as copy:
            for page in _pages(copy.pages):
                for number in range(self.stacked):
                    file.seek(page.dataoffsets[0] + number * page.nbytes)
                    samples = _in_order(page, [self._stored(page, *next(planes))])
                    file.write(samples.astype(page.dtype.newbyteorder(copy.byteorder)).tobytes())
                if not self.stacked:
                    arrays = [self._stored(page, *next(planes)) for _ in range(page.imagedepth)]
                    _replace(page, _encoded(page, _in_order(page, arrays)), file, used)
            file.flush()
            file.seek(0, io.SEEK_END)


def _can_encode(page: TiffPage) -> bool:
    """Whether there is an encoder for the page's own layout."""
    return (
        page.compression in LOSSLESS
        and page.fillorder == 1
        and page.dtype.kind in "uif"
        and not (_packed(page) and (page.compression != COMPRESSION.NONE or page.dtype.kind != "u"))
    )


def _packed(page: TiffPage) -> bool:
    """Whether samples have fewer bits than the type that they are read as."""
    return page.bitspersample != page.dtype.itemsize * 8


def _associated(page: TiffPage) -> bool:
    return EXTRASAMPLE.ASSOCALPHA in page.extrasamples and page.dtype.kind == "u"


def _decoded(page: TiffPage, array: np.ndarray) -> np.ndarray:
    """Grey or RGB of 8 bits."""
    if page.photometric == PHOTOMETRIC.PALETTE:
        return np.moveaxis(page.colormap[:, array[:, :, 0]] >> 8, 0, 2).astype(np.uint8)
    if page.photometric == PHOTOMETRIC.SEPARATED:
        return np.array(PIL.Image.fromarray(array, "CMYK").convert("RGB"))
    if page.photometric == PHOTOMETRIC.YCBCR:
        if page.compression not in (COMPRESSION.JPEG, COMPRESSION.OJPEG):
            raise ValueError("YCbCr without JPEG is not read")
        return array  # RGB by now
    white = page.photometric == PHOTOMETRIC.MINISWHITE
    return ((array != 0) ^ white).astype(np.uint8) * 255


def _pages(pages: Sequence[TiffPage]) -> Iterator[TiffPage]:
    """Each directory, and behind it those below it: thumbnails, smaller copies."""
    for page in pages:
        yield page
        if page.subifds:
            yield from _pages(page.pages)


def _stacked(file: TiffFile) -> int:
    """How many planes a file has that ImageJ or tifffile wrote behind its only directory; 0 for another.

    Raises `ValueError` where the description promises more than there are.
    """
    if len(file.pages) != 1 or file.is_ome:
        return 0
    page, (series, *_) = file.pages.first, file.series
    planes = math.prod(series.shape) // math.prod(page.shape)
    promised = int(file.imagej_metadata.get("images", 1)) if file.is_imagej else 1
    if file.is_shaped:
        promised = math.prod(file.shaped_metadata[0]["shape"]) // math.prod(page.shape)
    if promised > planes:
        raise ValueError(f"truncated: the description promises {promised} planes, and not all are there")
    contiguous = page.is_contiguous and page.compression == COMPRESSION.NONE
    return planes if planes > 1 and page.imagedepth == 1 and contiguous else 0


def _in_order(page: TiffPage, planes: list[np.ndarray]) -> np.ndarray:
    """Planes of H×W×S in the order of the page's axes: S×D×H×W×1 or 1×D×H×W×S."""
    array = np.stack(planes)
    return array[None] if page.shaped[0] == 1 else np.moveaxis(array, 3, 0)[..., None]


def _encoded(page: TiffPage, samples: np.ndarray) -> list[bytes]:
    """The page's strips or tiles with these pixels, as a TIFF file of its own would have them."""
    separate, depth, length, _, contiguous = samples.shape
    many = separate * contiguous > 1
    shape = (separate,) * (separate > 1) + (depth,) * (depth > 1) + samples.shape[2:4]
    shape += (contiguous,) * (contiguous > 1)
    tile = ((page.tiledepth,) * (depth > 1) + (page.tilelength, page.tilewidth)) if page.is_tiled else None
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=page.parent.byteorder, bigtiff=page.parent.is_bigtiff) as writer:
        writer.write(
            samples.reshape(shape),
            photometric="minisblack",
            planarconfig=("contig" if contiguous > 1 else "separate") if many else None,
            extrasamples=[0] * (separate * contiguous - 1) if many else None,
            volumetric=depth > 1,
            tile=tile,
            rowsperstrip=None if tile else min(page.rowsperstrip or length, length),
            bitspersample=page.bitspersample if _packed(page) else None,
            compression=None if page.compression == COMPRESSION.NONE else page.compression,
            predictor=page.predictor if page.predictor > 1 else None,
            metadata=None,
        )
    file.seek(0)
    with TiffFile(file) as made:
        places = zip(made.pages.first.dataoffsets, made.pages.first.databytecounts, strict=True)
        content = file.getbuffer()
        return [bytes(content[at : at + count]) for at, count in places]


def _replace(page: TiffPage, segments: list[bytes], file: IO[bytes], used: set[int]) -> None:
    """Put the strips or tiles where the old ones are, or at the end where they do not fit."""
    offsets, counts = list(page.dataoffsets), list(page.databytecounts)
    if len(segments) != len(offsets):
        raise ValueError(f"{len(offsets)} strips or tiles, expected {len(segments)}")
    for i, segment in enumerate(segments):
        if len(segment) > counts[i] or offsets[i] == 0 or offsets[i] in used:
            offsets[i] = file.seek(0, io.SEEK_END)
        used.add(offsets[i])
        file.seek(offsets[i])
        file.write(segment)
        counts[i] = len(segment)
    file.flush()
    number = "Q" if page.parent.is_bigtiff else "I"
    for codes, old, new in ((OFFSETS, page.dataoffsets, offsets), (COUNTS, page.databytecounts, counts)):
        if list(old) != new:
            tag = next(tag for code in codes if (tag := page.tags.get(code)))
            tag.overwrite(new if len(new) > 1 else new[0], dtype=number)


# ------------------------------------------------------------------------------------------------
# Files of another layout, or from another format


def described(file: TiffFile, page: TiffPage) -> dict[str, Any]:
    """What the page has of icc_profile, orientation, dpi, xmp, text, exif; others: names of other tags."""
    tags = page.tags
    kept: dict[str, Any] = {"icc_profile": page.iccprofile, "orientation": tags.valueof(ORIENTATION)}
    xmp = tags.valueof(XMP)
    kept["xmp"] = xmp if isinstance(xmp, bytes) else None
    resolution = page.get_resolution(tifffile.RESUNIT.INCH) if tags.valueof(296, 1) in (2, 3) else None
    kept["dpi"] = resolution
    description = tags.valueof(DESCRIPTION)
    kept["text"] = {"Description": description} if isinstance(description, str) and description else None
    kept["exif"] = _exif(file, page)
    kept["others"] = other_tags(page)
    return kept


def other_tags(page: TiffPage) -> list[str]:
    """The names of those that `Pages` does not write."""
    return [tag.name for tag in page.tags if tag.code not in KNOWN]


def _exif(file: TiffFile, page: TiffPage) -> bytes | None:
    """As JPEG and others have it: what is said of the camera and the shot."""
    if page is not file.pages.first or not {EXIF, GPS, *ABOUT}.intersection(page.tags.keys()):
        return None
    found, exif = PIL.Image.Exif(), PIL.Image.Exif()
    try:
        file.filehandle.seek(0)
        found.load_from_fp(file.filehandle)
        for code in found.keys() & {ORIENTATION, *ABOUT}:
            exif[code] = found[code]
        for code in (EXIF, GPS):
            if ifd := found.get_ifd(code):
                exif.get_ifd(code).update(ifd)
        return exif.tobytes()
    except Exception:  # a stranger's: of the tags that only describe, nothing may end the reading
        return None


class Pages:
    """Writes pages, each of its own size, type and description, to a new TIFF file."""

    def __init__(self, file: IO[bytes], *, big: bool = False) -> None:
        self.writer = tifffile.TiffWriter(file, bigtiff=big, byteorder="<")

    def add(
        self, array: np.ndarray, kept: dict[str, Any], *, rgb: bool, alpha: int, bits: int | None
    ) -> None:
        """array: H×W×S, of which the first three samples are RGB or grey, and the last `alpha` are alpha."""
        samples = array.shape[2]
        plain = samples - alpha - (3 if rgb else 1)
        self.writer.write(
            array.squeeze(2) if samples == 1 else array,
            photometric="rgb" if rgb else "minisblack",
            planarconfig="contig" if samples > 1 else None,
            extrasamples=["unspecified"] * plain + ["unassalpha"] * alpha if plain + alpha else None,
            compression=None if bits else "zlib",
            bitspersample=bits,
            iccprofile=kept.get("icc_profile"),
            resolution=kept.get("dpi"),
            resolutionunit="INCH" if kept.get("dpi") else None,
            extratags=self._tags(kept),
            software=False,
            metadata=None,
        )

    def _tags(self, kept: dict[str, Any]) -> list[tuple]:
        exif = PIL.Image.Exif()
        exif.load(kept.get("exif") or b"")
        words = {code: str(exif[code]).encode() + b"\0" for code in ABOUT if exif.get(code)}
        tags: list[tuple] = [(code, 2, 0, value, True) for code, value in words.items()]
        for code, name in ((EXIF, "ExifTag"), (GPS, "GPSTag")):  # by number, tifffile would refuse them
            if values := dict(exif.get_ifd(code)):
                if INTEROP in values:
                    values[INTEROP] = exif.get_ifd(INTEROP)  # instead of where it was
                tags.append((name, 4, 1, self._add_directory(code, values), True))
        if "orientation" in kept:
            tags.append((ORIENTATION, 3, 1, kept["orientation"], True))
        if "xmp" in kept:
            tags.append((XMP, 1, len(kept["xmp"]), kept["xmp"], True))
        if text := comment(kept):
            tags.append((DESCRIPTION, 2, 0, text.encode() + b"\0", True))
        return tags

    def _add_directory(self, code: int, values: dict[int, Any]) -> int:
        """Where it is in the file now; tifffile writes none of EXIF's."""
        directory = ImageFileDirectory_v2(b"II*\0\0\0\0\0", group=code)
        for key, value in values.items():
            directory[key] = value
        file = self.writer.filehandle
        file.write(b"\0" * (file.tell() % 2))
        at = file.tell()
        content = directory.tobytes(at)
        file.write(content + b"\0" * (len(content) % 2))
        return at

    def close(self) -> None:
        """Write what is outstanding."""
        self.writer.close()
