"""What describes a picture, as PNG, JPEG, WebP, GIF, BMP and JPEG XL files hold it.

`kept`, by key: icc_profile, exif and xmp (bytes), orientation (2 ... 8), dpi (x, y), text (name -> words),
gamma, chromaticity; lossless, where a WebP is; others, the names of what only the file's own format holds;
and that itself, under the format's name, as it stands in the file.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
import png

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, INCH = 274, 282, 283, 296, 2
TYPES = {
    "icc_profile": bytes,
    "exif": bytes,
    "xmp": bytes,
    "orientation": int,
    "dpi": tuple,
    "text": dict,
    "gamma": float,
    "chromaticity": tuple,
    "others": list,
    "PNG": list,
    "JPEG": bytes,
    "JPEG XL": list,
    "density": tuple,
    "lossless": bool,
}
SHOWN = {
    "icc_profile": "colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "orientation": "orientation",
    "dpi": "resolution",
    "text": "comments",
    "gamma": "gamma",
    "chromaticity": "chromaticities",
}
HOLDS = {
    "PNG": set(SHOWN),
    "JPEG": set(SHOWN) - {"gamma", "chromaticity"},
    "TIFF": set(SHOWN) - {"gamma", "chromaticity"},
    "WEBP": {"icc_profile", "exif", "xmp", "orientation", "dpi"},
    "JPEG XL": {"exif", "xmp", "orientation", "dpi"},
    "BMP": {"dpi"},
    "GIF": {"text"},
    "NPY": set(),
}
# Chunks of a PNG that hold the pixels, or what is said of pixels of another kind than RGB.
PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"hIST", b"acTL", b"fcTL", b"fdAT"}
OF_THE_TYPE = {b"sBIT", b"bKGD"}
NEUTRAL = PIXELS | OF_THE_TYPE
NEUTRAL |= {b"iCCP", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"tEXt", b"zTXt", b"iTXt", b"sRGB"}
DESCRIBING = {b"Exif", b"xml ", b"jumb", b"brob"}  # boxes of a JPEG XL
RATIOS = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of its sides; the first: none
# Segments of a JPEG that its encoder writes itself, or that point at what is not written.
ENCODERS = {"APP0", "APP14"}


def clean(kept: dict[str, Any], orientation: Any) -> dict[str, Any]:
    """Without what is empty, or of another type than it should be: a stranger's file can have anything."""
    if orientation in range(2, 9):
        kept["orientation"] = int(orientation)
    else:
        kept.pop("orientation", None)
    kept = {key: value for key, value in kept.items() if value and isinstance(value, TYPES[key])}
    numbers = [key for key in ("dpi", "chromaticity") if key in kept]
    for key in numbers:
        kept[key] = tuple(float(each) for each in kept[key])
        if not all(math.isfinite(each) and each > 0 for each in kept[key]):
            del kept[key]
    return kept


def left_out(kept: dict[str, Any], kind: str) -> list[str]:
    """In words, what a file of this format does not hold of it."""
    missing = [words for key, words in SHOWN.items() if key in kept and key not in HOLDS[kind]]
    return missing + ([] if kind in kept else kept.get("others", []))


def of_pillow(image: PIL.Image.Image, path: Path) -> dict[str, Any]:
    """What a file holds that Pillow has opened."""
    info = image.info
    kept = {key: info.get(key) for key in ("icc_profile", "exif", "xmp", "dpi", "gamma", "chromaticity")}
    if image.mode == "CMYK":
        kept["icc_profile"] = None  # it describes inks, and what is written is RGB
    comment = info.get("comment")
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
    kept["text"] = {"Comment": comment} if comment else None
    if image.format == "PNG":
        chunks = [(name, bytes(data)) for name, data in png.Reader(bytes=path.read_bytes()).chunks()]
        kept["text"] = {key: str(words) for key, words in image.text.items() if not key.startswith("XML:com")}
        same = not image.is_animated and image.mode in ("L", "LA", "RGB", "RGBA", "I;16")
        dropped = PIXELS if same else PIXELS | OF_THE_TYPE
        kept["PNG"] = [(name, data) for name, data in chunks if name not in dropped]
        kept["others"] = [name.decode("latin-1") for name, _ in kept["PNG"] if name not in NEUTRAL]
    if image.format in ("JPEG", "MPO"):
        segments = [(name, data) for name, data in image.applist if name not in ENCODERS]
        foreign = (b"MPF\0", b"ICC_PROFILE") if image.mode == "CMYK" else b"MPF\0"
        segments = [(name, data) for name, data in segments if not data.startswith(foreign)]
        kept["JPEG"] = b"".join(map(_segment, segments))
        known = (b"Exif\0", b"http://ns.adobe.com/xap", b"ICC_PROFILE")
        kept["others"] = [name for name, data in segments if name != "COM" and not data.startswith(known)]
        kept["density"] = (info.get("jfif_unit"), *info["jfif_density"]) if "jfif_density" in info else None
    if image.format == "WEBP":
        kept["lossless"] = _is_lossless(path.read_bytes())
    if image.format == "GIF" and isinstance(info.get("extension"), tuple):
        name = info["extension"][0][:11]
        kept["others"] = [] if name.startswith((b"NETSCAPE", b"ANIMEXTS")) else [name.decode("latin-1")]
    return kept


def _is_lossless(content: bytes) -> bool:
    """Whether a WebP's pixels are: those of an animation's first frame."""
    at, end = 12, len(content)  # behind RIFF, a size and WEBP
    while at + 8 <= end:
        name, size = struct.unpack_from("<4sI", content, at)
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        at += 8 + (16 if name == b"ANMF" else size + size % 2)  # behind 16 bytes a frame has its chunks
    return False


def _segment(segment: tuple[str, bytes]) -> bytes:
    name, data = segment
    marker = 0xFE if name == "COM" else 0xE0 + int(name.removeprefix("APP"))
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def exif(kept: dict[str, Any], *, resolution: bool = False) -> bytes | None:
    """The file's own EXIF, or else one with the orientation, or none; with the resolution where asked for."""
    dpi: tuple[float, float] | None = kept.get("dpi") if resolution else None
    if ("exif" in kept or "orientation" not in kept) and not dpi:
        return kept.get("exif")
    made = PIL.Image.Exif()
    made.load(kept.get("exif") or b"")
    if dpi and X_RESOLUTION not in made:
        made[X_RESOLUTION], made[Y_RESOLUTION] = dpi
        made[RESOLUTION_UNIT] = INCH
    elif "exif" in kept:
        return kept["exif"]
    if "orientation" in kept:
        made[ORIENTATION] = kept["orientation"]
    return made.tobytes()


def comment(kept: dict[str, Any]) -> str:
    """All words in one text."""
    text = kept.get("text", {})
    if len(text) == 1:
        return next(iter(text.values()))
    return "\n".join(f"{key}: {words}" for key, words in text.items())


def png_chunks(kept: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Those that describe: the file's own, or else what Pillow makes of the rest."""
    if "PNG" in kept:
        return kept["PNG"]
    info = PIL.PngImagePlugin.PngInfo()
    for key, words in kept.get("text", {}).items():
        info.add_itxt(key, words)
    if "xmp" in kept:
        info.add_itxt("XML:com.adobe.xmp", kept["xmp"].decode("utf-8", "replace"))
    options = {"icc_profile": kept.get("icc_profile"), "exif": exif(kept), "dpi": kept.get("dpi")}
    file = io.BytesIO()
    PIL.Image.new("L", (1, 1)).save(
        file, "PNG", pnginfo=info, **{key: value for key, value in options.items() if value}
    )
    chunks = png.Reader(bytes=file.getvalue()).chunks()
    return [(name, bytes(data)) for name, data in chunks if name not in PIXELS]


def with_chunks(content: bytes | bytearray, kept: dict[str, Any]) -> bytes:
    """A PNG with those that describe it right behind its header, where the standard wants most of them."""
    header, *rest = png.Reader(bytes=content).chunks()
    file = io.BytesIO()
    png.write_chunks(file, [header, *png_chunks(kept), *rest])
    return file.getvalue()


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of a JPEG XL container's; none in a bare codestream."""
    at = 0 if content.startswith(b"\0\0\0\x0cJXL ") else len(content)
    while at + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        head = 16 if size == 1 else 8
        size = struct.unpack_from(">Q", content, at + 8)[0] if size == 1 else size or len(content) - at
        if size < head:
            return
        yield name, content[at + head : at + size]
        at += size


def of_boxes(found: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """What the boxes of a JPEG XL hold."""
    kept: dict[str, Any] = {"JPEG XL": [(name, data) for name, data in found if name in DESCRIBING]}
    for name, data in found:
        if name == b"xml ":
            kept["xmp"] = data
        if name == b"Exif":
            own = b"Exif\0\0" + data[4 + int.from_bytes(data[:4], "big") :]
            kept["exif"] = _unoriented(own)  # the decoder has turned the pixels
    return clean(kept, None)


def _unoriented(content: bytes) -> bytes:
    """EXIF without the orientation."""
    made = PIL.Image.Exif()
    made.load(content)
    made.pop(ORIENTATION, None)
    return made.tobytes()


def jpegxl_boxes(kept: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Those that describe: the file's own, or else made of the rest but for the orientation."""
    if "JPEG XL" in kept:
        return kept["JPEG XL"]
    made = exif({key: value for key, value in kept.items() if key != "orientation"}, resolution=True)
    if made and "orientation" in kept:
        made = _unoriented(made)
    found = [(b"Exif", bytes(4) + made.removeprefix(b"Exif\0\0"))] if made else []
    return found + ([(b"xml ", kept["xmp"])] if "xmp" in kept else [])


def jpegxl_size(codestream: bytes) -> tuple[int, int]:
    """(width, height), from the bits behind the signature, lowest first."""
    bits, at = int.from_bytes(codestream[2:14], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & ((1 << count) - 1)

    small = take(1)

    def length() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = length()
    over, under = RATIOS[take(3)]
    return (height * over // under if under else length()), height


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content
