"""Picture files as people have them: what is in them comes back, or somebody is told."""

import os
import warnings

import imagecodecs
import numpy as np
import png
import pytest
import skimage.data
import tifffile
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from Miniproject_1 import Model
from Miniproject_1.others import denoise as denoise_module
from Miniproject_1.others import described, photographs
from Miniproject_1.others.pictures import read_picture
from Miniproject_1.others.study.bench import peak_gib

ROWS, COLUMNS, PLANES = 36, 32, 5
UNALIKE = {273, 279, 324, 325}  # TIFF tags: where strips and tiles are, and of how many bytes


@pytest.fixture(scope="module")
def rgb():
    """Photograph under Gaussian noise, H×W×3 `uint8`."""
    clean = skimage.data.astronaut()[60 : 60 + ROWS, 205 : 205 + COLUMNS]
    return (clean + np.random.default_rng(0).normal(0, 20, clean.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def grey(rgb):
    return rgb[:, :, 1]


@pytest.fixture(scope="module")
def stack(grey):
    """N×H×W `uint16`, no two planes alike."""
    more = np.random.default_rng(1).integers(0, 9_000, (PLANES, ROWS, COLUMNS))
    return (grey.astype(np.uint16) * 200 + more).astype(np.uint16)


def denoised(model, pixels, most):
    """H×W or H×W×3 with values up to `most`, by the model and nothing else; unless of 8 bits, stretched."""
    model.mixed_precision = bool(most == 255)
    low, high = (0, 255) if most == 255 else (float(pixels.min()), float(pixels.max()))
    images = (torch.from_numpy(pixels.astype(np.float32)) - low) * (255 / (high - low))
    images = images.reshape(*pixels.shape[:2], -1).permute(2, 0, 1).expand(3, -1, -1)
    answer = model.predict(images.unsqueeze(0))[0]
    answer = answer.permute(1, 2, 0) if pixels.ndim == 3 else answer.mean(0)
    return answer.numpy() * ((high - low) / 255) + low


@pytest.fixture
def written(tmp_path, run_here):
    """Files of a folder through the command: (folder of the answers, what was told)."""

    def written(folder, *options, code=0):
        done, told = run_here("denoise", folder, "-o", tmp_path / "out", "--quiet", *options)
        assert done == code, told.err
        return tmp_path / "out", told.err

    return written


def write_stacks(folder, stack, rgb):
    """A stack in each layout that is written in it again; returns the names of those of `stack` itself."""
    deep, eight = stack, (stack >> 8).astype(np.uint8)
    for name, options in {
        "pages": {},
        "deflated": {"compression": "zlib", "predictor": True},
        "tiles": {"compression": "lzw", "tile": (16, 16)},
        "big": {"bigtiff": True, "compression": "zstd"},
        "big_endian": {"byteorder": ">", "rowsperstrip": 7},
        "bio.ome": {"metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1}},
        "channels": {"planarconfig": "separate"},
    }.items():
        tifffile.imwrite(folder / f"{name}.tif", deep, photometric="minisblack", **options)
    for name, order in (("imagej", "<"), ("imagej_big_endian", ">")):
        with tifffile.TiffWriter(folder / f"{name}.tif", imagej=True, byteorder=order) as file:
            file.write(deep, truncate=True, resolution=(15.4, 15.4), metadata={"unit": "um", "Info": "lens"})
    tifffile.imwrite(folder / "imagej_pages.tif", deep, imagej=True)
    with tifffile.TiffWriter(folder / "shaped.tif") as file:
        file.write(deep, truncate=True, photometric="minisblack")
    channels_last = np.moveaxis(deep, 0, 2)
    tifffile.imwrite(folder / "five.tif", channels_last, photometric="minisblack", planarconfig="contig")
    volume = np.concatenate([deep, deep[:3]])
    tifffile.imwrite(folder / "volume.tif", volume, volumetric=True, tile=(4, 16, 16), compression="zlib")
    own = {path.stem for path in folder.iterdir()} - {"volume"}
    tables = np.tile(np.arange(256, dtype=np.uint16) * 256, (3, 1))
    tifffile.imwrite(folder / "coloured_by_imagej.tif", eight, imagej=True, colormap=tables)
    with tifffile.TiffWriter(folder / "imagej_rgb.tif", imagej=True) as file:
        file.write(np.stack([rgb, rgb[::-1]]), truncate=True)
    with tifffile.TiffWriter(folder / "pyramid.ome.tif") as file:
        file.write(deep[0], subifds=1, tile=(16, 16), compression="zlib")
        file.write(deep[0, ::2, ::2].copy(), tile=(16, 16), compression="zlib", subfiletype=1)
    with tifffile.TiffWriter(folder / "thumbnail.tif") as file:
        file.write(rgb, photometric="rgb", metadata=None, resolution=(300, 300), resolutionunit="INCH")
        file.write(rgb[::3, ::3].copy(), photometric="rgb", metadata=None, subfiletype=1)
    return own


def test_each_plane_of_a_tiff_is_denoised_and_all_else_stays(tmp_path, stack, rgb, written, photo_model):
    folder = tmp_path / "in"
    folder.mkdir()
    own = write_stacks(folder, stack, rgb)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, told = written(folder)
    assert told == ""
    expected = np.stack([denoised(photo_model, plane, 65535) for plane in stack])
    for path in folder.iterdir():
        with tifffile.TiffFile(path) as before, tifffile.TiffFile(out / path.name) as after:
            assert (before.byteorder, before.is_bigtiff, len(before.pages)) == (
                after.byteorder,
                after.is_bigtiff,
                len(after.pages),
            )
            pages = [[*each.pages, *(each.pages.first.pages or ())] for each in (before, after)]
            for old, new in zip(*pages, strict=True):
                for tag in old.tags:
                    if tag.code not in UNALIKE:
                        np.testing.assert_array_equal(tag.value, new.tags[tag.code].value, tag.name)
                off = np.abs(old.asarray().astype(float) - new.asarray())
                assert off.mean() > 0.01 * old.asarray().std(), path.name  # denoised, each of them
            kinds = [[(s.kind, s.axes, s.shape, s.dtype) for s in each.series] for each in (before, after)]
            assert kinds[0] == kinds[1], path.name
            found = np.moveaxis(after.asarray(), 2, 0) if path.stem == "five" else after.asarray()
        if path.stem in own:
            assert np.abs(found - expected).max() <= 1, path.name
    thumbnail = tifffile.imread(out / "thumbnail.tif", key=1)
    assert np.abs(thumbnail - denoised(photo_model, rgb[::3, ::3], 255)).max() <= 1
    volume = tifffile.imread(out / "volume.tif")
    assert np.abs(volume - np.concatenate([expected, expected[:3]])).max() <= 1
    assert np.abs(tifffile.imread(out / "imagej_rgb.tif")[0] - denoised(photo_model, rgb, 255)).max() <= 1


def test_only_what_is_called_alpha_is_alpha(tmp_path, rgb, grey, written, photo_model):
    folder = tmp_path / "in"
    folder.mkdir()
    for most, name in ((255, "8"), (65535, "16")):
        dtype, factor = (np.uint8, 1) if most == 255 else (np.uint16, 257)
        colours, other = rgb.astype(dtype) * factor, grey.astype(dtype)[..., None] * factor
        for last, call in (("unspecified", "infrared"), ("unassalpha", "alpha")):
            four = np.dstack([colours, other])
            options = {"photometric": "rgb", "extrasamples": [last]}
            tifffile.imwrite(folder / f"{call}{name}.tif", four, **options)
            separate = np.moveaxis(four, 2, 0)
            tifffile.imwrite(
                folder / f"{call}{name}_planar.tif",
                separate,
                planarconfig="separate",
                metadata=None,
                **options,
            )
        samples = np.dstack([colours, other[::-1], other])
        kinds = ["unassalpha", "unspecified"]
        tifffile.imwrite(folder / f"both{name}.tif", samples, photometric="rgb", extrasamples=kinds)
        two = np.dstack([other, other[::-1]])
        tifffile.imwrite(folder / f"two{name}.tif", two, photometric="minisblack", planarconfig="contig")
        three = np.dstack([other, other[::-1], other])
        tifffile.imwrite(folder / f"three{name}.tif", three, photometric="minisblack", planarconfig="contig")
    out, _ = written(folder)
    for most, name in ((255, "8"), (65535, "16")):
        colour = denoised(photo_model, tifffile.imread(folder / f"both{name}.tif")[..., :3], most)
        single = denoised(photo_model, tifffile.imread(folder / f"two{name}.tif")[..., 0], most)
        upside_down = denoised(photo_model, tifffile.imread(folder / f"two{name}.tif")[..., 1], most)
        alpha = tifffile.imread(folder / f"alpha{name}.tif")[..., 3]
        for call, expected in {
            f"infrared{name}": [colour, single],
            f"alpha{name}": [colour, alpha],
            f"both{name}": [colour, alpha[::-1], single],
            f"two{name}": [single, upside_down],
            f"three{name}": [single, upside_down, single],
        }.items():
            found = tifffile.imread(out / f"{call}.tif").astype(float)
            assert np.abs(found - np.dstack(expected)).max() <= 1, call
            if "alpha" in call:
                np.testing.assert_array_equal(found[..., 3], alpha)
            if (out / f"{call}_planar.tif").exists():
                planar = tifffile.imread(out / f"{call}_planar.tif")
                np.testing.assert_array_equal(np.moveaxis(planar, 0, 2), found)


def test_premultiplied_colours_are_denoised_without_their_alpha(tmp_path, rgb, written, photo_model):
    half = np.full((ROWS, COLUMNS, 1), 128, np.uint8)
    (tmp_path / "in").mkdir()
    samples = np.dstack([rgb // 2, half])
    tifffile.imwrite(tmp_path / "in" / "p.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    out, _ = written(tmp_path / "in")
    found = tifffile.imread(out / "p.tif")
    np.testing.assert_array_equal(found[..., 3:], half)
    assert np.abs(found[..., :3] - denoised(photo_model, rgb, 255) / 2).max() <= 2


def test_a_stack_that_tifffile_tags_as_rgb_is_a_stack(tmp_path, stack, rgb, written, photo_model):
    folder = tmp_path / "in"
    folder.mkdir()
    eight = (stack >> 8).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tifffile says itself that this will change
        tifffile.imwrite(folder / "three.tif", eight[:3])
        tifffile.imwrite(folder / "four.tif", eight[:4])
        tifffile.imwrite(folder / "depth.tif", eight[:3], metadata={"axes": "ZYX"})
        tifffile.imwrite(folder / "many.tif", np.stack([eight[:3], eight[1:4]]))
    planar, options = np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(folder / "colour.tif", planar, metadata={"axes": "CYX"}, **options)
    tifffile.imwrite(folder / "plain.tif", planar, metadata=None, **options)
    out, told = written(folder)
    assert sorted(line.split(": ")[0].rpartition("/")[2] for line in told.splitlines()) == [
        "depth.tif",
        "four.tif",
        "many.tif",
        "three.tif",
    ]
    expected = np.stack([denoised(photo_model, plane, 255) for plane in eight])
    for name in ("three", "four", "depth"):
        found = tifffile.imread(out / f"{name}.tif")
        assert np.abs(found - expected[: len(found)]).max() <= 1, name
    assert np.abs(tifffile.imread(out / "many.tif")[1] - expected[1:4]).max() <= 1
    for name in ("colour", "plain"):
        found = np.moveaxis(tifffile.imread(out / f"{name}.tif"), 0, 2)
        assert np.abs(found - denoised(photo_model, rgb, 255)).max() <= 1, name


def test_pages_that_are_converted_keep_what_describes_them(tmp_path, rgb, grey, written):
    folder = tmp_path / "in"
    folder.mkdir()
    fax, page = Image.fromarray(grey).convert("1"), Image.fromarray(rgb)
    options = {"dpi": (200, 200), "save_all": True}
    fax.save(folder / "fax.tif", compression="group4", append_images=[fax.rotate(180)], **options)
    page.save(folder / "scan.tif", compression="jpeg", append_images=[page.rotate(180)] * 2, **options)
    page.convert("P").save(folder / "palette.tif", append_images=[page.convert("P")], **options)
    page.convert("CMYK").save(folder / "inks.tif", append_images=[page.convert("CMYK")], **options)
    out, _ = written(folder)
    for path in folder.iterdir():
        with Image.open(path) as before, Image.open(out / path.name) as after:
            assert before.n_frames == after.n_frames > 1
            for frame in range(before.n_frames):
                before.seek(frame)
                after.seek(frame)
                assert after.info["dpi"] == before.info["dpi"] == (200, 200), path.name
                off = np.subtract(before.convert("RGB"), after.convert("RGB"), dtype=float)
                assert 2 < np.abs(off).mean() < (130 if path.stem == "fax" else 40), path.name


@pytest.mark.parametrize("kind", ["png", "webp", "gif"])
def test_each_frame_of_an_animation_is_denoised_and_shown_as_long(
    tmp_path, rgb, grey, written, photo_model, kind
):
    (tmp_path / "in").mkdir()
    frames = [Image.fromarray(np.roll(rgb, 4 * i, 0)) for i in range(4)]
    seen = [frame.copy() for frame in frames]
    for i, frame in enumerate(seen):
        frame.putalpha(Image.fromarray(((grey > 60 + 20 * i) * 255).astype(np.uint8)))
    times = [100, 250, 300, 400]
    lossless = {"lossless": True, "exact": True} if kind == "webp" else {}
    for name, images in (("opaque", frames), ("alpha", seen)):
        images[0].save(
            tmp_path / "in" / f"{name}.{kind}",
            save_all=True,
            append_images=images[1:],
            duration=times,
            loop=3,
            disposal=2,
            **lossless,
        )
    out, _ = written(tmp_path / "in")
    for name, images in (("opaque", frames), ("alpha", seen)):
        with (
            Image.open(tmp_path / "in" / f"{name}.{kind}") as before,
            Image.open(out / f"{name}.{kind}") as after,
        ):
            assert after.n_frames == len(images) and after.info["loop"] == 3
            for i, time in enumerate(times):
                before.seek(i)
                after.seek(i)
                old, new = (np.array(each.convert("RGBA")) for each in (before, after))
                assert after.info["duration"] == time
                np.testing.assert_array_equal(new[..., 3], old[..., 3], f"{name}, frame {i}")
                off = np.abs(new[..., :3] - denoised(photo_model, old[..., :3], 255))[old[..., 3] > 0]
                assert off.mean() < (0.6 if kind == "png" else 12), (name, i)


def test_a_picture_in_place_of_an_animation_stays_one(tmp_path, rgb, written):
    (tmp_path / "in").mkdir()
    frames = [Image.fromarray(np.roll(rgb, 4 * i, 0)) for i in range(3)]
    options = {"save_all": True, "default_image": True, "duration": [50, 70]}
    frames[0].save(tmp_path / "in" / "a.png", append_images=frames[1:], **options)
    out, _ = written(tmp_path / "in")
    with Image.open(out / "a.png") as image:
        assert image.default_image and image.n_frames == 3
        for i, time in ((1, 50), (2, 70)):
            image.seek(i)
            assert image.info["duration"] == time


def test_what_cannot_be_written_back_is_refused_before_any_work(
    tmp_path, stack, grey, run_here, monkeypatch, capsys
):
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    np.save(tmp_path / "stack.npy", stack)
    frames = [Image.fromarray(grey), Image.fromarray(grey[::-1].copy())]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    tifffile.imwrite(tmp_path / "packed.tif", stack[0] >> 4, bitspersample=12)
    tifffile.imwrite(tmp_path / "float.tif", stack[0].astype(np.float32))
    tifffile.imwrite(
        tmp_path / "five.tif", np.moveaxis(stack, 0, 2), photometric="minisblack", planarconfig="contig"
    )
    with tifffile.TiffWriter(tmp_path / "cut.tif", imagej=True) as file:
        file.write(stack, truncate=True)
    whole = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:-100])
    monkeypatch.setattr(Model, "predict", None)  # work that is not to be begun
    for source, target, words in (
        ("stack.tif", "out.png", "5 planes are written as TIFF only"),
        ("stack.npy", "out.tif", "5 planes are written as NPY only"),
        ("moving.png", "out.webp", "2 planes are written as PNG only"),
        ("packed.tif", "out.png", "PNG cannot hold 12 bits"),
        ("float.tif", "out.png", "PNG cannot hold numbers of type float32"),
        ("five.tif", "out.png", "PNG cannot hold 5 channels"),
        ("cut.tif", "out.tif", "truncated"),
    ):
        code, told = run_here("denoise", tmp_path / source, "-o", tmp_path / target, "--quiet")
        assert code == 1 and words in told.err and source in told.err, (source, told.err)
        assert not (tmp_path / target).exists()


def test_numbers_that_are_not_read_are_named(tmp_path, grey, written):
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / "complex.tif", grey.astype(np.complex64))
    tifffile.imwrite(folder / "nan.tif", np.where(grey > 200, np.nan, grey).astype(np.float32))
    np.save(folder / "four.npy", np.dstack([grey] * 4))
    np.save(folder / "text.npy", np.array(["words"]))
    np.save(folder / "object.npy", np.array([{}]), allow_pickle=True)
    (folder / "exr.tif").write_bytes(b"v/1\1" + bytes(99))
    _, told = written(folder, code=1)
    for name, words in (
        ("complex.tif", "complex64"),
        ("nan.tif", "NaN or infinity"),
        ("four.npy", "planes, or alpha?"),
        ("text.npy", "expected integers or floating point"),
        ("object.npy", ""),
        ("exr.tif", "OpenEXR is not read"),
    ):
        (line,) = [line for line in told.splitlines() if name in line]
        assert words in line
    assert not (tmp_path / "out").exists()


def test_planes_are_counted_and_only_one_is_in_memory(tmp_path, stack, run_here, monkeypatch):
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    code, told = run_here("denoise", tmp_path / "stack.tif", "-o", tmp_path / "out.tif")
    assert code == 0 and f"/{PLANES} [" in told.err
    side, number = 1024, 32  # 2 MB a plane, 64 MB in all
    with tifffile.TiffWriter(tmp_path / "imagej.tif", imagej=True) as file:
        planes = (np.full((side, side), i, np.uint16) for i in range(number))
        file.write(planes, shape=(number, side, side), dtype=np.uint16, truncate=True)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for i in range(number):
            file.write(np.full((side, side), i, np.uint16), compression="zlib", metadata=None)
    names = ["imagej.tif", "pages.tif"]
    read = "from Miniproject_1.others.pictures import open_picture, write_pictures"
    copy = f"""{read}
for name in {names}:
    with open_picture(Path("{tmp_path}") / name) as file:
        write_pictures(file, iter(file), Path("{tmp_path}") / ("out_" + name))"""
    assert peak_gib(copy) - peak_gib(read) < 0.03
    for name in names:
        assert (tifffile.imread(tmp_path / f"out_{name}") == np.arange(number)[:, None, None]).all()


def exif_of_a_camera():
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    exif[34665] = {33434: 0.01, 36867: "2024:01:01 00:00:00"}
    return exif


def test_what_describes_a_picture_stays_with_it(tmp_path, rgb, written):
    folder, image = tmp_path / "in", Image.fromarray(rgb)
    folder.mkdir()
    exif, xmp = exif_of_a_camera(), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    info = PngInfo()
    info.add_text("Title", "words")
    info.add_itxt("Author", "Ünï")
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    chromaticities = b"".join(
        n.to_bytes(4, "big") for n in (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    )
    for name, data in (
        (b"gAMA", (45455).to_bytes(4, "big")),
        (b"cHRM", chromaticities),
        (b"tIME", b"\x07\xe8\1\2\3\4\5"),
    ):
        info.add(name, data)
    image.save(folder / "all.png", pnginfo=info, dpi=(300, 300), exif=exif)
    deep = imagecodecs.png_encode(rgb.astype(np.uint16) * 257)
    head, *rest = png.Reader(bytes=deep).chunks()
    described = [
        each
        for each in png.Reader(str(folder / "all.png")).chunks()
        if each[0] not in (b"IHDR", b"IDAT", b"IEND")
    ]
    with open(folder / "deep.png", "wb") as file:
        png.write_chunks(file, [head, *described, *rest])
    image.save(folder / "all.jpg", dpi=(300, 300), exif=exif, comment=b"words", xmp=xmp)
    iptc = b"\xff\xed" + (20).to_bytes(2, "big") + b"Photoshop 3.0\0ABCD"
    image.save(folder / "iptc.jpg", extra=iptc)
    content = bytearray((folder / "iptc.jpg").read_bytes())
    content[13:18] = b"\0\0\2\0\3"  # no unit: a pixel is two by three
    (folder / "iptc.jpg").write_bytes(content)
    image.save(folder / "all.webp", exif=exif, xmp=xmp)
    image.save(folder / "all.bmp", dpi=(300, 300))
    image.quantize(200).save(folder / "all.gif", comment=b"words")
    moving = [image, image.rotate(180)]
    moving[0].save(
        folder / "moving.png", save_all=True, append_images=moving[1:], pnginfo=info, dpi=(300, 300)
    )
    image.save(folder / "camera.tif", exif=exif.tobytes(), dpi=(300, 300))
    grey = rgb[:, :, 0].astype(np.uint16)
    tifffile.imwrite(
        folder / "scan.tif",
        grey,
        description="slide 7",
        resolution=(118.11, 118.11),
        resolutionunit="CENTIMETER",
        metadata=None,
        extratags=[(700, 1, len(xmp), xmp, True), (65000, 2, 0, "the maker's own", True)],
    )
    out, told = written(folder)
    assert told == ""
    for path in folder.iterdir():
        with Image.open(path) as before, Image.open(out / path.name) as after:
            keys = (
                "dpi",
                "gamma",
                "chromaticity",
                "comment",
                "xmp",
                "icc_profile",
                "jfif_unit",
                "jfif_density",
            )
            for key in keys:
                assert after.info.get(key) == before.info.get(key), (path.name, key)
            old, new = before.getexif(), after.getexif()
            assert dict(old.get_ifd(34665)) == dict(new.get_ifd(34665)), path.name
            assert (old.get(271), old.get(274)) == (new.get(271), new.get(274)), path.name
            if path.suffix == ".png":
                assert after.text == before.text
                assert (b"tIME", b"\x07\xe8\1\2\3\4\5") in list(png.Reader(str(out / path.name)).chunks())
    assert iptc in (out / "iptc.jpg").read_bytes()
    with tifffile.TiffFile(out / "scan.tif") as tiff:
        tags = tiff.pages.first.tags
        assert (tags[270].value, tags[700].value, tags[65000].value) == ("slide 7", xmp, "the maker's own")
        assert tiff.pages.first.get_resolution("CENTIMETER") == pytest.approx((118.11, 118.11))


def test_what_another_format_cannot_hold_is_told_in_a_line(tmp_path, rgb, run_here):
    image, exif = Image.fromarray(rgb), exif_of_a_camera()
    info = PngInfo()
    info.add_text("Title", "words")
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    info.add(b"tIME", b"\x07\xe8\1\2\3\4\5")
    image.save(tmp_path / "a.png", pnginfo=info, dpi=(300, 300), exif=exif)
    for suffix, missing, resolution in (
        ("jpg", "gamma, tIME", (300, 300)),
        ("tif", "gamma, tIME", (300, 300)),
        ("webp", "comments, gamma, tIME", None),
        ("bmp", "EXIF, orientation, comments, gamma, tIME", (300, 300)),
        ("gif", "EXIF, orientation, resolution, gamma, tIME", None),
        ("npy", "EXIF, orientation, resolution, comments, gamma, tIME", None),
    ):
        out = tmp_path / f"out.{suffix}"
        code, told = run_here("denoise", tmp_path / "a.png", "-o", out, "--quiet")
        (line,) = told.err.splitlines()
        assert code == 0 and line.endswith(f"has no place for it: {missing}"), line
        kept = read_picture(out).kept
        if resolution:
            assert kept["dpi"] == pytest.approx(resolution, abs=0.01)
        if suffix in ("jpg", "tif", "webp"):
            with Image.open(out) as after:
                assert after.getexif().get_ifd(34665)[33434] == 0.01
                assert (after.getexif()[271], after.getexif()[274]) == ("Maker", 6)
                if suffix == "webp":  # has no other place for it
                    assert after.getexif()[282] == pytest.approx(300, abs=0.01)
        if suffix in ("jpg", "tif", "gif"):
            assert "words" in str(kept["text"])
    image.convert("CMYK").save(tmp_path / "inks.jpg", icc_profile=b"a printer's")
    image.save(tmp_path / "two.jpg", "MPO", save_all=True, append_images=[image.resize((9, 9))])
    for name, words in (("inks", "colour profile of its inks"), ("two", "left out: 1 behind the picture")):
        code, told = run_here(
            "denoise", tmp_path / f"{name}.jpg", "-o", tmp_path / f"{name}.out.jpg", "--quiet"
        )
        assert code == 0 and words in told.err


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_xl_is_upright_since_its_decoders_heed_no_exif(tmp_path, rgb, run_here, orientation):
    exif = exif_of_a_camera()
    exif[274] = orientation
    source, out = tmp_path / "a.png", tmp_path / "a.jxl"
    Image.fromarray(rgb).save(source, exif=exif)
    code, told = run_here("denoise", source, "-o", out, "--strength", 0, "--quiet")
    assert code == 0 and told.err == ""
    with Image.open(source) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(imagecodecs.jpegxl_decode(out.read_bytes()), shown)
    made = Image.Exif()
    made.load(b"Exif\0\0" + dict(described.boxes(out.read_bytes()))[b"Exif"][4:])
    assert made.get(274, 1) == 1 and made[271] == "Maker" and made.get_ifd(34665)[33434] == 0.01


def test_a_webp_without_loss_stays_so_and_a_grey_gif_keeps_its_alpha(tmp_path, rgb, grey, run_here):
    image, exif = Image.fromarray(rgb), exif_of_a_camera()
    moving = {"save_all": True, "append_images": [image.rotate(180)]}
    for name, lossless, options in (
        ("plain", True, {}),
        ("described", True, {"exif": exif}),
        ("moving", True, moving),
        ("lossy", False, {"exif": exif}),
        ("moving_lossy", False, moving),
    ):
        source, out = tmp_path / f"{name}.webp", tmp_path / f"{name}.out.webp"
        image.save(source, lossless=lossless, **options)
        assert run_here("denoise", source, "-o", out, "--strength", 0, "--quiet")[0] == 0
        with Image.open(source) as before, Image.open(out) as after:
            assert np.array_equal(np.asarray(before), np.asarray(after)) == lossless, name
    half = np.where(np.arange(COLUMNS) < COLUMNS // 2, 0, 255).astype(np.uint8) + 0 * grey
    Image.fromarray(np.dstack([grey, half])).save(tmp_path / "half.png")
    assert run_here("denoise", tmp_path / "half.png", "-o", tmp_path / "half.gif", "--quiet")[0] == 0
    np.testing.assert_array_equal(read_picture(tmp_path / "half.gif").alpha[..., 0], half)


def test_each_type_of_numbers_comes_back_in_its_own_range(tmp_path, grey, rgb, stack, written, photo_model):
    folder = tmp_path / "in"
    folder.mkdir()
    most = {"unit": 1 / 255, "counts": 40.0, "below": 3.0}
    for name, factor in most.items():
        for dtype in (np.float16, np.float32, np.float64):
            numbers = (grey * factor - (200 if name == "below" else 0)).astype(dtype)
            tifffile.imwrite(folder / f"{name}{np.dtype(dtype).itemsize}.tif", numbers)
    tifffile.imwrite(folder / "signed.tif", grey.astype(np.int16) * 8 - 1000)
    tifffile.imwrite(folder / "long.tif", grey.astype(np.uint32) * 1_000_000)
    tifffile.imwrite(
        folder / "predicted.tif", rgb.astype(np.float32), photometric="rgb", compression="zlib", predictor=3
    )
    tifffile.imwrite(folder / "packed12.tif", stack[0] >> 4, bitspersample=12)
    tifffile.imwrite(folder / "packed10.tif", stack[0] >> 6, bitspersample=10, rowsperstrip=5)
    tifffile.imwrite(folder / "white16.tif", 65535 - stack[0], photometric="miniswhite")
    tifffile.imwrite(folder / "white8.tif", 255 - grey, photometric="miniswhite")
    out, told = written(folder)
    assert told == ""
    for path in folder.iterdir():
        with tifffile.TiffFile(path) as before, tifffile.TiffFile(out / path.name) as after:
            old, new = before.asarray(), after.asarray()
            for code in (258, 259, 262, 284, 317, 339):
                assert after.pages.first.tags.valueof(code) == before.pages.first.tags.valueof(code), (
                    path.name
                )
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        old, new = old.astype(float), new.astype(float)
        white = 65535 if path.stem == "white16" else 255 if path.stem == "white8" else 0
        old, new = (white - old, white - new) if white else (old, new)
        whole = path.stem in ("packed12", "packed10", "white16", "white8")
        expected = denoised(photo_model, old, 255 if path.stem == "white8" else old.max() + 1)
        assert np.abs(new - expected).max() <= (1.01 if whole else 0.002 * np.ptp(old)), path.name


def test_arrays_bitmaps_and_jpeg_xl_are_read_and_written(tmp_path, grey, rgb, stack, written, photo_model):
    folder = tmp_path / "in"
    folder.mkdir()
    shapes = {
        "plane": grey.astype(np.float32) / 255,
        "colour": rgb.astype(np.uint16) * 257,
        "stack": stack,
        "turned": np.asfortranarray(stack.astype(">i4")),
        "colours": np.stack([rgb, rgb[::-1]]),
        "one": grey[..., None],
    }
    for name, array in shapes.items():
        np.save(folder / f"{name}.npy", array)
    Image.fromarray(rgb).save(folder / "colour.bmp")
    Image.fromarray(grey).save(folder / "grey.bmp")
    alpha = np.dstack([rgb, grey])
    codes = {
        "colour": rgb.astype(np.uint16) * 257,
        "grey": grey,
        "float": rgb.astype(np.float32) / 255,
        "alpha": alpha,
    }
    for name, array in codes.items():
        (folder / f"{name}.jxl").write_bytes(
            imagecodecs.jpegxl_encode(array, lossless=True, usecontainer=True)
        )
    exif = b"\0\0\0\0" + exif_of_a_camera().tobytes()[6:]
    box = (len(exif) + 8).to_bytes(4, "big") + b"Exif" + exif
    (folder / "grey.jxl").write_bytes((folder / "grey.jxl").read_bytes() + box)
    out, _ = written(folder)
    for name, array in shapes.items():
        found = np.load(out / f"{name}.npy")
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        assert np.abs(found.astype(float) - array).mean() > 0.01 * array.std(), name
    expected = np.stack([denoised(photo_model, plane, 65535) for plane in stack])
    assert np.abs(np.load(out / "stack.npy") - expected).max() <= 1
    assert np.abs(np.load(out / "colours.npy")[0] - denoised(photo_model, rgb, 255)).max() <= 1
    assert np.abs(np.array(Image.open(out / "colour.bmp")) - denoised(photo_model, rgb, 255)).max() <= 1
    assert Image.open(out / "grey.bmp").mode == "L"
    for name, array in codes.items():
        found = imagecodecs.jpegxl_decode((out / f"{name}.jxl").read_bytes())
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        assert np.abs(found.astype(float) - array).mean() > 0.01 * array.std(), name
    np.testing.assert_array_equal(imagecodecs.jpegxl_decode((out / "alpha.jxl").read_bytes())[..., 3], grey)
    assert box in (out / "grey.jxl").read_bytes()


def test_large_pictures_are_asked_for_and_denoised_by_bands(
    tmp_path, rgb, run_here, monkeypatch, photo_model
):
    rows = np.tile(rgb, (40, 4, 1))[:1100]
    Image.fromarray(rows).save(tmp_path / "tall.png")
    tifffile.imwrite(tmp_path / "tall.tif", rows, photometric="rgb")
    monkeypatch.setattr(photographs, "MOST_PIXELS", 100_000)
    monkeypatch.setattr(denoise_module, "PIXELS_AT_ONCE", 1)  # bands of one tile each
    for name in ("tall.png", "tall.tif"):
        arguments = ("denoise", tmp_path / name, "-o", tmp_path / f"out.{name}")
        code, told = run_here(*arguments)
        assert code == 1 and "128×1100 pixels" in told.err and "--large" in told.err
        assert run_here(*arguments, "--large")[0] == 0
        found = read_picture(tmp_path / f"out.{name}", large=True).pixels
        assert np.abs(found - denoised(photo_model, rows, 255)).max() <= 0.51  # rounding


def test_large_goes_beyond_what_pillow_takes_for_a_bomb(tmp_path, grey, run_here, monkeypatch):
    Image.fromarray(grey).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    arguments = ("denoise", tmp_path / "bomb.png", "-o", tmp_path / "out.png")
    assert run_here(*arguments)[0] == 1
    assert run_here(*arguments, "--large")[0] == 0
    assert Image.MAX_IMAGE_PIXELS == 99  # as it was


def test_stacks_are_scored_plane_by_plane_and_compared_by_the_first(tmp_path, stack, run_here):
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    clean = np.repeat(stack.mean(0, keepdims=True), PLANES, 0).astype(np.uint16)
    tifffile.imwrite(tmp_path / "clean.tif", clean, photometric="minisblack")
    tifffile.imwrite(tmp_path / "short.tif", clean[:3], photometric="minisblack")
    arguments = (
        "denoise",
        tmp_path / "stack.tif",
        "-o",
        tmp_path / "out.tif",
        "--compare",
        "--force",
        "--clean",
    )
    code, told = run_here(*arguments, tmp_path / "clean.tif")
    mse = np.square((stack.astype(float) - clean) / 65535).mean((1, 2))
    assert code == 0 and f"PSNR {(-10 * np.log10(mse)).mean():.2f} -> " in told.out
    with Image.open(tmp_path / "out.tif.compare.png") as image:
        low, high = stack[0].min(), stack[0].max()
        shown = ((stack[0] - low) * (255 / (high - low))).round()
        np.testing.assert_allclose(np.array(image)[:, :COLUMNS, 0], shown, atol=1)
    code, told = run_here(*arguments, tmp_path / "short.tif")
    assert code == 1 and "3 planes, expected 5" in told.err


def test_grey_tensors_are_grey_all_the_way(grey, photo_model):
    x = torch.from_numpy(grey.copy())[None, None]
    three = photo_model.predict(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(photo_model.predict(x), three.mean(1, keepdim=True))
    states = []
    for channels in (1, 3):
        torch.manual_seed(0)
        model = Model()
        pairs = [x.repeat(8, channels, 1, 1), x.flip(2).repeat(8, channels, 1, 1)]
        model.train(*pairs)
        states.append(model.predict(x))
    torch.testing.assert_close(states[0], states[1])
    with pytest.raises(ValueError, match=r"x: expected N×3×H×W, or N×1×H×W for grey, got \(1, 2, 8, 8\)"):
        photo_model.predict(torch.zeros(1, 2, 8, 8))


def test_file_systems_without_permissions_are_written_to(tmp_path, rgb, run_here, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    Image.fromarray(rgb).save(tmp_path / "a.png")
    monkeypatch.setattr(os, "chmod", refuse)
    for _ in range(2):
        assert run_here("denoise", tmp_path / "a.png", "-o", tmp_path / "out.png", "--force")[0] == 0
    monkeypatch.undo()
    (tmp_path / "out.png").chmod(0o640)
    denoise_module.denoise([str(tmp_path / "a.png")], tmp_path / "out.png", force=True)
    assert (tmp_path / "out.png").stat().st_mode & 0o777 == 0o640  # as plain writing leaves it


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "ü" * 125 + ".png"])
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path, rgb, run_here, name):
    Image.fromarray(rgb).save(tmp_path / name)
    code, told = run_here("denoise", tmp_path / name, "-o", tmp_path / "out")
    assert code == 0, told.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_a_file_is_written_over_where_its_folder_takes_no_other(tmp_path, rgb, run_here, monkeypatch):
    def refuse(path, mode="r", *rest, **options):
        if "x" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, mode, *rest, **options)

    Image.fromarray(rgb).save(tmp_path / "a.png")
    (tmp_path / "out.png").write_bytes(bytes(99_999))
    monkeypatch.setattr("Miniproject_1.model.open", refuse, raising=False)
    arguments = ("denoise", tmp_path / "a.png", "--force", "-o")
    assert run_here(*arguments, tmp_path / "out.png")[0] == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (COLUMNS, ROWS)
    assert (tmp_path / "out.png").stat().st_size < 9_999
    code, told = run_here(*arguments, tmp_path / "new.png")
    assert code == 1 and "Permission denied" in told.err
