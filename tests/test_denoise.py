"""Picture files in, picture files out."""

import re
import signal
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import png
import pytest
import skimage.data
import tifffile
import torch
from conftest import closed, run
from PIL import Image, ImageCms, ImageOps

import Miniproject_1.others.denoise as denoise_module
from Miniproject_1 import Model
from Miniproject_1.model import UNet
from Miniproject_1.others.noises import gaussian
from Miniproject_1.others.photographs import embedded_photographs, find_photographs
from Miniproject_1.others.pictures import Picture, read_picture, upright, write_picture
from Miniproject_1.others.study.bench import peak_gib

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF = Image.Exif()
EXIF[274] = 6  # orientation: turn it by 90°


def denoise(*arguments):
    return run("-m", "Miniproject_1", "denoise", *arguments)


@pytest.fixture(scope="session")
def noisy():
    """48×40 pixels of a real photograph under Gaussian noise, H×W×3."""
    photograph = torch.from_numpy(skimage.data.astronaut()[60:108, 200:240].copy()).permute(2, 0, 1)
    images = gaussian(photograph.unsqueeze(0), 25, torch.Generator().manual_seed(0))
    return images[0].permute(1, 2, 0).numpy()


@pytest.fixture
def gallery(tmp_path, noisy):
    """A folder of the same picture in every kind that is read; alpha is a ramp."""
    folder = tmp_path / "gallery"
    (folder / "deeper").mkdir(parents=True)
    rgb = Image.fromarray(noisy)
    grey = rgb.convert("L")
    ramp = Image.linear_gradient("L").resize(rgb.size)
    low = np.random.default_rng(0).integers(0, 256, noisy.shape, np.uint16)  # bits that 8 cannot hold
    deep, deep_alpha = noisy.astype(np.uint16) * 256 + low, np.array(ramp, np.uint16)[:, :, None] * 257
    rgba, la = rgb.copy(), grey.copy()
    rgba.putalpha(ramp)
    la.putalpha(ramp)
    rgb.save(folder / "colour.png", icc_profile=PROFILE, exif=EXIF)
    rgb.save(folder / "colour.jpg", quality=95, icc_profile=PROFILE, exif=EXIF)
    rgb.save(folder / "colour.webp", lossless=True, icc_profile=PROFILE, exif=EXIF)
    rgb.save(folder / "deeper" / "colour.TIFF", icc_profile=PROFILE)
    rgb.convert("CMYK").save(folder / "inks.jpg", quality=95)
    rgb.convert("P").save(folder / "palette.png")
    grey.save(folder / "grey.jpg", quality=95)
    grey.save(folder / "grey.png")
    la.save(folder / "grey_alpha.png")
    rgba.save(folder / "alpha.png")
    rgba.save(folder / "alpha.webp", lossless=True, exact=True)
    rgba.save(folder / "alpha.tif")
    rgb.crop((0, 0, 1, 48)).save(folder / "thin.png")
    write_picture(Picture(deep, None, {"icc_profile": PROFILE, "orientation": 6}), folder / "deep.png")
    write_picture(Picture(deep, deep_alpha, {}), folder / "deep_alpha.png")
    write_picture(Picture(deep[:, :, :1], None, {}), folder / "deep_grey.png")
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", iccprofile=PROFILE)
    tifffile.imwrite(folder / "deep_grey.tif", deep[:, :, 0], extratags=[(274, "H", 1, 6, True)])
    for name in ("deep.png", "deep_alpha.png", "deep.tif"):
        np.testing.assert_array_equal(read_picture(folder / name).pixels, deep, err_msg=name)
    for name in ("deep_grey.png", "deep_grey.tif"):
        np.testing.assert_array_equal(read_picture(folder / name).pixels, deep[:, :, :1], err_msg=name)
    return folder


def test_every_kind_of_picture_keeps_what_it_is(gallery, tmp_path, photo_model):
    out = tmp_path / "out"
    done = denoise(gallery, "-o", out)
    assert done.returncode == 0, done.stderr
    names = {path.relative_to(gallery) for path in gallery.rglob("*.*")}
    assert {path.relative_to(out) for path in out.rglob("*.*")} == names
    for name in names:
        before, after = read_picture(gallery / name), read_picture(out / name)
        assert after.pixels.dtype == before.pixels.dtype, name
        assert after.pixels.shape == before.pixels.shape, name
        assert after.kept.get("icc_profile") == before.kept.get("icc_profile"), name
        assert after.kept.get("orientation") == before.kept.get("orientation"), name
        if before.alpha is None:
            assert after.alpha is None, name
        else:
            np.testing.assert_array_equal(after.alpha, before.alpha, err_msg=str(name))
        photo_model.mixed_precision = before.pixels.itemsize == 1
        expected = before.with_values(photo_model.predict(before.tensor())).pixels.astype(int)
        off = np.abs(after.pixels.astype(int) - expected)
        assert off.max() <= (0 if name.suffix.lower() in (".png", ".tif", ".tiff") else 40), name
        assert np.abs(expected - before.pixels.astype(int)).max() > off.max(), name
    for name in ("colour.png", "colour.jpg", "colour.webp", "deep.png", "deep_grey.tif"):
        with Image.open(out / name) as image:
            assert image.getexif()[274] == 6, name
    first = np.asarray(Image.open(gallery / "colour.png").convert("RGB"), float)
    for name in names:  # nothing is inverted or lost on the way in: each of them shows the one picture
        picture = read_picture(gallery / name)
        seen = picture.tensor()[0].permute(1, 2, 0).numpy()
        if picture.pixels.shape[2] > 1:
            shown = first
        else:  # made of red, or by Pillow of all three
            shown = first[:, :, :1] if name.stem == "deep_grey" else first.mean(2, keepdims=True)
        assert np.abs(seen - shown[:, : seen.shape[1]]).mean() < 25, name
    for name in ("colour.jpg", "deep.png", "deep.tif", "deeper/colour.TIFF"):
        with Image.open(out / name) as image:
            assert image.info["icc_profile"] == PROFILE, name
    with Image.open(out / "grey.jpg") as image:
        assert image.mode == "L"
    assert png.Reader(str(out / "deep.png")).read()[3]["bitdepth"] == 16
    assert tifffile.imread(out / "deep.tif").dtype == np.uint16


def test_one_file_compared_and_scored(tmp_path, noisy):
    clean = Image.fromarray(skimage.data.astronaut()[60:108, 200:240])
    (tmp_path / "clean").mkdir()
    clean.save(tmp_path / "clean" / "noisy.webp", lossless=True)
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    out = tmp_path / "new" / "denoised.png"
    arguments = (tmp_path / "noisy.png", "-o", out, "--compare", "--clean", tmp_path / "clean")
    done = denoise(*arguments)
    assert done.returncode == 0, done.stderr
    before, after = (float(done.stdout.split("PSNR ")[1].split()[i]) for i in (0, 2))
    ssim_before, ssim_after = (float(done.stdout.split("SSIM ")[1].split()[i]) for i in (0, 2))
    assert before == pytest.approx(20.3, abs=0.5) and after > before + 4
    assert ssim_after > ssim_before + 0.1
    with Image.open(tmp_path / "new" / "denoised.png.compare.png") as image:
        pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels[:, :40], noisy)
    np.testing.assert_array_equal(pixels[:, 48:], np.asarray(Image.open(out)))
    assert sorted(path.name for path in out.parent.iterdir()) == ["denoised.png", "denoised.png.compare.png"]

    with pytest.raises(FileExistsError, match=r"denoised\.png is there already"):
        denoise_module.denoise([str(tmp_path / "noisy.png")], out, compare=True, clean=tmp_path / "clean")
    assert denoise(*arguments, "--force", "--quiet", "--device", "cpu").stderr == ""


def test_bad_pictures_are_named_and_the_good_ones_are_done(tmp_path, gallery, noisy):
    folder = tmp_path / "bad"
    folder.mkdir()
    Image.fromarray(noisy).save(folder / "good.png")
    whole = (gallery / "colour.jpg").read_bytes()
    (folder / "cut.png").write_bytes((gallery / "colour.png").read_bytes()[:900])
    (folder / "cut16.png").write_bytes((gallery / "deep.png").read_bytes()[:9000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.webp").write_text("no picture")
    (folder / "gif.png").write_bytes(b"GIF89a" + whole[6:])
    tifffile.imwrite(folder / "complex.tif", noisy.astype(np.complex64), photometric="rgb")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.new("1", (10_000, 10_000)).save(folder / "bomb_small.png")
    tag = (34675, "s", 0, "no profile", True)  # where an ICC profile's bytes should be
    tifffile.imwrite(folder / "odd.tif", noisy, photometric="rgb", extratags=[tag])
    done = denoise(folder, "-o", tmp_path / "out")
    assert done.returncode == 1
    good = ["good.png", "odd.tif"]
    bad = sorted(path.name for path in folder.iterdir() if path.name not in good)
    lines = [line for line in done.stderr.splitlines() if line.startswith(str(folder))]
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == bad
    assert f"{len(bad)} of {len(bad) + 2} pictures failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == good


def test_a_tiff_of_huge_tiles_takes_no_memory(tmp_path):
    # Ten pixels a side, in a tile of 32,768: what decodes it would make room for all of the tile.
    tags = {256: 10, 257: 10, 258: 8, 259: 1, 262: 1, 277: 1, 322: 2**15, 323: 2**15, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    (tmp_path / "tiles.tif").write_bytes(header + entries + bytes(4))
    with pytest.raises(ValueError, match=r"tiles\.tif: 32768×32768 pixels: a decompression bomb"):
        read_picture(tmp_path / "tiles.tif")


def test_a_deep_png_that_goes_on_without_end_takes_no_memory(tmp_path):
    header = (b"IHDR", struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0))
    with (tmp_path / "bomb.png").open("wb") as file:
        png.write_chunks(file, [header, (b"IDAT", zlib.compress(bytes(300 * 2**20))), (b"IEND", b"")])
    read = "from Miniproject_1.others.pictures import read_picture"
    shape = f"read_picture(Path({str(tmp_path / 'bomb.png')!r})).pixels.shape"
    before, peak = peak_gib(read), peak_gib(f"{read}; assert {shape} == (10, 10, 3)")
    assert peak - before < 0.1


def test_a_folder_or_a_closed_file_for_a_picture_is_named(tmp_path, noisy):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.png"):
        read_picture(tmp_path / "folder.png")
    Image.fromarray(noisy).save(tmp_path / "closed.png")
    with closed(tmp_path / "closed.png") as path, pytest.raises(PermissionError, match=r"closed\.png"):
        read_picture(path)


def test_a_dark_picture_is_not_taken_for_one_in_0_1(tmp_path):
    dark = np.random.default_rng(0).integers(0, 300, (8, 9, 1), dtype=np.uint16)
    write_picture(Picture(dark, None, {}), tmp_path / "dark.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoise_module.denoise([str(tmp_path / "dark.tif")], tmp_path / "out.tif")
    denoised = read_picture(tmp_path / "out.tif").pixels
    assert denoised.dtype == np.uint16 and 0 < denoised.max() < 500  # of 65,535


def test_a_full_disk_leaves_the_picture_that_was_there(tmp_path, noisy):
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    (tmp_path / "out.png").write_bytes(b"what was there")
    script = (
        "import resource, sys; from Miniproject_1.__main__ import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (999, 999)); sys.exit(main())"
    )
    done = run("-B", "-c", script, "denoise", tmp_path / "noisy.png", "-o", tmp_path / "out.png", "--force")
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out.png").read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noisy.png", "out.png"]


@pytest.mark.parametrize(
    "name", ["colour.png", "colour.jpg", "colour.webp", "deep.png", "deep.tif", "deeper/colour.TIFF"]
)
def test_no_part_of_a_picture_is_taken_for_the_whole(gallery, name):
    path = gallery / name
    whole = path.read_bytes()
    for tenths in range(10):
        path.write_bytes(whole[: len(whole) * tenths // 10])
        with pytest.raises(ValueError, match=path.stem):
            read_picture(path)
    path.write_bytes(np.random.default_rng(0).bytes(len(whole)))
    with pytest.raises(ValueError, match=path.stem):
        read_picture(path)


def test_files_that_others_wrote_are_read_right(tmp_path, noisy):
    # 12 of 16 bits that mean something, as the file itself says.
    deep = noisy.astype(np.uint16) << 8
    rows = (deep >> 4).reshape(len(deep), -1)
    with (tmp_path / "twelve.png").open("wb") as file:
        png.Writer(deep.shape[1], deep.shape[0], greyscale=False, bitdepth=12).write(file, rows)
    tifffile.imwrite(tmp_path / "lzw.tif", deep, photometric="rgb", compression="lzw")
    preview = Image.fromarray(noisy[::4, ::4].copy())
    Image.fromarray(noisy).save(
        tmp_path / "camera.jpg", "MPO", save_all=True, append_images=[preview], quality=95
    )
    half = np.full_like(deep[:, :, :1], 0x8000)
    premultiplied = np.concatenate([deep // 2, half], axis=2)
    tifffile.imwrite(
        tmp_path / "premultiplied.tif", premultiplied, photometric="rgb", extrasamples=["assocalpha"]
    )
    np.testing.assert_array_equal(read_picture(tmp_path / "premultiplied.tif").alpha, half)
    # 274: the orientation; 6: to be turned by 90° to the right. Pillow turns an 8-bit TIFF itself.
    tifffile.imwrite(tmp_path / "turned.tif", noisy, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    tifffile.imwrite(tmp_path / "odd.tif", deep, photometric="rgb", extratags=[(274, "I", 1, 70_000, True)])
    turned = np.rot90(noisy, -1)
    np.testing.assert_array_equal(upright(read_picture(tmp_path / "turned.tif")), turned)
    np.testing.assert_array_equal(upright(Picture(noisy, None, {"orientation": 6})), turned)
    write_picture(read_picture(tmp_path / "turned.tif"), tmp_path / "again.tif")
    with Image.open(tmp_path / "again.tif") as image:
        np.testing.assert_array_equal(ImageOps.exif_transpose(image), turned)
    assert "orientation" not in read_picture(tmp_path / "odd.tif").kept
    noise = np.random.default_rng(0).integers(0, 65536, (400, 400, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "large.tif", noise, photometric="rgb", compression="lzw", rowsperstrip=16)
    whole = (tmp_path / "large.tif").read_bytes()
    (tmp_path / "large.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"large\.tif"):
        read_picture(tmp_path / "large.tif")
    for name in ("twelve.png", "lzw.tif", "premultiplied.tif"):
        found = read_picture(tmp_path / name).tensor()[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, noisy, atol=1.1, err_msg=name)
    with Image.open(tmp_path / "camera.jpg") as image:
        assert (image.format, image.n_frames, image.size) == ("MPO", 2, (40, 48))
        np.testing.assert_array_equal(read_picture(tmp_path / "camera.jpg").pixels, np.asarray(image))


def test_what_cannot_be_done_is_said_before_any_work(tmp_path, noisy):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(noisy).save(tmp_path / folder / "same.png")
    source, clean, out = tmp_path / "one" / "same.png", tmp_path / "two" / "same.png", tmp_path / "out"
    before = clean.read_bytes()
    (tmp_path / "damaged.pth").write_bytes(b"nothing")
    for inputs, output, options, words in (
        (["nowhere.png"], out, {}, "nowhere.png"),
        (["*.webp"], out, {}, "webp"),
        (["*/same.png"], out, {}, "would both become"),
        ([source], out, {"weights": tmp_path / "damaged.pth"}, "damaged.pth"),
        ([source], out, {"device": "abacus"}, "abacus"),
        (["one"], tmp_path / "one", {"force": True}, "would be replaced"),
        (["one", source], tmp_path / "new.png", {}, "new.png names a file, expected a folder"),
        ([source], tmp_path / "out.tga", {}, "out.tga"),
        ([source], clean, {"clean": clean, "force": True}, "would be replaced"),
        ([source], out, {"clean": tmp_path / "lost"}, "--clean: "),
        ([""], out, {"clean": tmp_path / "two"}, "--clean: "),
    ):
        with pytest.raises((OSError, ValueError), match=re.escape(words)) as refused:
            denoise_module.denoise([str(tmp_path / each) for each in inputs], output, **options)
        assert len(str(refused.value).splitlines()) == 1
    for more in ((), ("--debug",)):
        done = denoise(source, "-o", out, "--clean", tmp_path / "lost", *more)
        assert done.returncode == 1 and "--clean: " in done.stderr
        assert ("Traceback" in done.stderr) == bool(more) == (len(done.stderr.splitlines()) > 1)
    assert clean.read_bytes() == before
    assert not out.exists() and not (tmp_path / "new.png").exists()
    for name in ("alpha.jpg", "deep.jpg", "deep.webp", "name.tga"):
        deep = noisy.astype(np.uint16) if "deep" in name else noisy
        with pytest.raises(ValueError, match=name):
            write_picture(Picture(deep, noisy[:, :, :1] if "alpha" in name else None, {}), tmp_path / name)


def test_large_pictures_equal_their_parts(tmp_path, photo_model):
    path = next(path for path in embedded_photographs() if path.stem == "coffee")
    done = denoise(path, "-o", tmp_path / "coffee.png")
    assert done.returncode == 0, done.stderr
    with PIL.Image.open(path) as image:
        part = np.asarray(image.convert("RGB"))[60:340, 336:600]  # across a tile's edge, column 512
    expected = photo_model.predict(torch.from_numpy(part.copy()).permute(2, 0, 1).unsqueeze(0))
    found = np.asarray(Image.open(tmp_path / "coffee.png"))[164:236, 440:584]
    off = np.abs(found - expected[0].permute(1, 2, 0).numpy()[104:176, 104:248])
    amx = torch.cpu.get_capabilities().get("amx_bf16")  # where bfloat16's rounding depends on a tensor's size
    assert off.max() <= (0.6 if amx else 0.51)  # else rounding alone


def test_patterns_take_the_pictures_and_two_of_one_stem_are_compared_apart(tmp_path, noisy):
    for name in ("a.png", "a.jpg", "b.png"):
        Image.fromarray(noisy).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("no picture")
    out = tmp_path / "out"
    denoise_module.denoise([str(tmp_path / "a.*")], out, compare=True)
    made = ["a.jpg", "a.jpg.compare.png", "a.png", "a.png.compare.png"]
    assert sorted(path.name for path in out.iterdir()) == made
    with pytest.raises(FileExistsError, match=r"a\.jpg is there already, and 1 more of 2"):
        denoise_module.denoise([str(tmp_path / "a.*")], out)


def test_a_reference_that_is_another_kind_of_picture_is_refused(tmp_path, noisy, capsys):
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    Image.fromarray(noisy).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(noisy).save(tmp_path / "turned.png", exif=EXIF)
    for name, words in (("grey", "grey, expected colours"), ("turned", "EXIF orientation")):
        with pytest.raises(ValueError, match="1 of 1"):
            denoise_module.denoise(
                [str(tmp_path / "noisy.png")], tmp_path / f"{name}.out.png", clean=tmp_path / f"{name}.png"
            )
        assert words in capsys.readouterr().err
    np.save(tmp_path / "float.npy", noisy / np.float32(255))
    with pytest.raises(ValueError, match="1 of 1"):
        denoise_module.denoise([str(tmp_path / "float.npy")], clean=tmp_path / "noisy.png")
    assert "uint8 and float32, have no white in common" in capsys.readouterr().err


def test_noise_is_told_of_the_channels_that_show_any(tmp_path, noisy, run_here):
    for name, pixels in (("green", noisy * np.uint8([0, 1, 0])), ("black", 0 * noisy)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    told = run_here("denoise", tmp_path, "-o", tmp_path / "out")[1].out
    sigma = dict(re.findall(r"(\w+)\.png: noise of about σ ([\d.]+)", told))
    assert sigma["black"] == "0.0" and float(sigma["green"]) == pytest.approx(25, abs=4)


def test_a_large_picture_shows_how_far_it_is(tmp_path, capsys):
    model = Model()
    model.network = UNet((8, 16))
    model.predict(torch.zeros(1, 3, 600, 1200, dtype=torch.uint8))
    assert "/6 [" in capsys.readouterr().err  # tiles
    model.predict(torch.zeros(1, 3, 60, 120, dtype=torch.uint8))
    assert not capsys.readouterr().err


def put(noisy, *paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy[:16, :16]).save(path, "JPEG")


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_from_a_mac_or_a_camera_card(tmp_path, noisy, run_here):
    """Hidden files are no pictures, links are followed but in no circles, and what is left out is told."""
    card, elsewhere = tmp_path / "card", tmp_path / "elsewhere"
    put(noisy, card / "real.jpg", card / "camera.jfif", card / "OLD.JPE", card / "sub" / "deep.jpeg")
    put(noisy, elsewhere / "linked.jpg", card / ".Trashes" / "gone.jpg")
    for name in ("._real.jpg", ".DS_Store", "sub/._deep.jpeg", "Thumbs.db", "clip.mov"):
        (card / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    (card / "link").symlink_to("../elsewhere")
    (card / "link.jpg").symlink_to("real.jpg")
    (card / "lost.jpg").symlink_to("nowhere.jpg")
    (card / "round").symlink_to(".")
    (elsewhere / "back").symlink_to("../card")
    code, told = run_here("denoise", card, "-o", tmp_path / "out")
    assert code == 0, told.err
    made = ["OLD.JPE", "camera.jfif", "link.jpg", "link/linked.jpg", "real.jpg", "sub/deep.jpeg"]
    assert files_below(tmp_path / "out") == made
    line = next(line for line in told.out.splitlines() if line.startswith("skipped"))
    counts = ["4 hidden", "2 linked in a circle", "2 of another kind", "1 not readable"]
    assert sorted(line.removeprefix("skipped: ").split(", ")) == sorted(counts)


def test_a_folder_that_may_not_be_read_is_counted(tmp_path, noisy):
    put(noisy, tmp_path / "real.jpg", tmp_path / "closed" / "inside.jpg")
    skipped = Counter()
    with closed(tmp_path / "closed"):
        assert find_photographs(Path("."), skipped=skipped) == [Path("real.jpg")]
    assert skipped == {"not readable": 1}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("trip [2020]/*.jpg", ["a1.jpg", "a2.jpg"]),
        ("trip [2020]/a[2-9].jpg", ["a2.jpg"]),
        ("*/day [1]/*.jpg", ["b.jpg"]),
        ("trip [2020]/*/*[b].jpg", ["b.jpg"]),
        ("tri? [2020]/day [[]1]/b.*", ["b.jpg"]),
        ("trip [0-9]/*.jpg", ["c.jpg"]),
        ("**/*.jpg", ["a1.jpg", "a2.jpg", "b.jpg", "c.jpg"]),
        ("trip [2020]/**/?.jpg", ["b.jpg"]),
        ("trip [2020]/**", ["a1.jpg", "a2.jpg", "day [1]/b.jpg"]),
        ("trip *", ["a1.jpg", "a2.jpg", "c.jpg", "day [1]/b.jpg"]),
        ("trip [2020]", ["a1.jpg", "a2.jpg", "day [1]/b.jpg"]),
        ("trip [2020]/a1.jpg", ["a1.jpg"]),
    ],
)
def test_brackets_in_names_and_patterns(tmp_path, noisy, monkeypatch, run_here, pattern, found):
    trip = tmp_path / "trip [2020]"
    put(noisy, trip / "a1.jpg", trip / "a2.jpg", trip / "day [1]" / "b.jpg", tmp_path / "trip 2" / "c.jpg")
    put(noisy, trip / "day [1]" / "._b.jpg")
    for name in ("one", "two"):  # two circles: by one way after the other, more paths than can be walked
        (trip / "day [1]" / name).symlink_to("..")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(denoise_module, "load_model", lambda *_: Still())
    code, told = run_here("denoise", pattern, "-o", tmp_path / "out")
    assert code == 0, told.err
    assert files_below(tmp_path / "out") == found


class Still:
    """A model that changes nothing, where no answer is looked at."""

    network = UNet((8,), 1)

    def predict(self, x):
        return x.clone()


def test_without_an_output_the_answer_lies_beside_each(tmp_path, noisy, run_here):
    put(noisy, tmp_path / "a.jpg", tmp_path / "deeper" / "b.jpg")
    pictures = [str(tmp_path / "a.jpg"), str(tmp_path / "deeper")]
    for more in ((), ("--force",), ("--skip-existing",)):
        assert run_here("denoise", *pictures, "--compare", *more)[0] == 0
        # What an earlier call has made is no input of the next one, not where a shell names it either.
        made = [f"a.denoised.jpg{end}" for end in ("", ".compare.png")]
        made += [f"deeper/b.denoised.jpg{end}" for end in ("", ".compare.png")]
        assert files_below(tmp_path) == sorted(["a.jpg", "deeper/b.jpg", *made])
        pictures += [str(tmp_path / made[0])]
    code, told = run_here("denoise", tmp_path)
    assert code == 1 and "a.denoised.jpg is there already, and 1 more" in told.err and "--skip-ex" in told.err
    assert "4 made before" in told.out


def test_a_batch_that_was_stopped_is_gone_on_with(tmp_path, noisy, run_here, monkeypatch):
    """Ctrl-C while a picture is written: it is written, and counts."""
    put(noisy, *(tmp_path / "in" / f"{i}.jpg" for i in range(4)))
    command = ("denoise", tmp_path / "in" / "**" / "*.jpg", "-o", tmp_path / "in" / "out")
    write = denoise_module.write_pictures

    def stopped_at_the_second(file, planes, path):
        made = list(planes)
        if path.name == "1.jpg":
            signal.raise_signal(signal.SIGINT)
        write(file, iter(made), path)

    monkeypatch.setattr(denoise_module, "write_pictures", stopped_at_the_second)
    code, told = run_here(*command)
    assert code == 130 and "Traceback" not in told.err
    last = "Miniproject_1: interrupted; 2 of 4 pictures are written; --skip-existing goes on with the others"
    assert last in told.err.splitlines()[-1]
    assert files_below(tmp_path / "in" / "out") == ["0.jpg", "1.jpg"]
    monkeypatch.setattr(denoise_module, "write_pictures", write)
    (tmp_path / "in" / "out" / "0.jpg").write_bytes(b"mine")
    code, told = run_here(*command, "--skip-existing")
    assert code == 0 and "2 of 4 are there already" in told.out and "2 made before" in told.out
    assert (tmp_path / "in" / "out" / "0.jpg").read_bytes() == b"mine"
    assert len(files_below(tmp_path / "in" / "out")) == 4
    code, told = run_here(*command, "--skip-existing", "--compare")  # which is missing, of each
    assert code == 0 and (tmp_path / "in" / "out" / "0.jpg").read_bytes() == b"mine"
    assert len(files_below(tmp_path / "in" / "out")) == 8
    with pytest.raises(SystemExit, match="2"):
        run_here(*command, "--skip-existing", "--force")


def test_what_is_written_counts_as_written_though_it_cannot_be_scored(tmp_path, noisy, run_here):
    put(noisy, tmp_path / "a.jpg")
    (tmp_path / "clean.jpg").write_bytes(b"nothing")
    code, told = run_here(
        "denoise", tmp_path / "a.jpg", "-o", tmp_path / "out", "--clean", tmp_path / "clean.jpg"
    )
    assert code == 1 and (tmp_path / "out" / "a.jpg").exists() and "failed" not in told.err
    assert "1 of 1 are written, but not compared or scored" in told.err


def test_a_burst_is_the_mean_of_its_answers(tmp_path, run_here, photo_model):
    clean = skimage.data.astronaut()[60:108, 200:240]
    generator = torch.Generator().manual_seed(0)
    shots = [gaussian(torch.from_numpy(clean.copy()), 25, generator).numpy() for _ in range(3)]
    for i, shot in enumerate(shots):
        (tmp_path / "shots").mkdir(exist_ok=True)
        Image.fromarray(shot).save(tmp_path / "shots" / f"{i}.png", icc_profile=PROFILE)
    out = tmp_path / "one.png"
    burst = ("denoise", "--burst", tmp_path / "shots")
    code, told = run_here(*burst, "-o", out)
    assert code == 0, told.err
    answers = [photo_model.predict(torch.from_numpy(shot).permute(2, 0, 1)[None]) for shot in shots]
    expected = torch.stack(answers).mean(0)[0].permute(1, 2, 0).numpy()
    with Image.open(out) as image:
        assert np.abs(np.asarray(image) - expected).max() <= 0.51 and image.info["icc_profile"] == PROFILE
    assert run_here(*burst)[0] == 0 and (tmp_path / "shots" / "0.denoised.png").exists()
    assert run_here(*burst, "-o", tmp_path / "folder")[0] == 0
    assert files_below(tmp_path / "folder") == ["0.png"]
    Image.fromarray(np.roll(shots[0], 3, 0)).save(tmp_path / "moved.png")
    code, told = run_here(*burst, tmp_path / "moved.png", "-o", out, "--force")
    assert code == 0 and "moved.png: shifted by +3.0 rows" in told.err
    for change, words in (
        (lambda shot: shot[:40], "(40, 40, 3, 'uint8', 1)"),
        (lambda shot: shot[:, :, 0], "(48, 40, 1, 'uint8', 1)"),
    ):
        Image.fromarray(change(shots[0])).save(tmp_path / "other.png")
        code, told = run_here(*burst, tmp_path / "other.png", "-o", tmp_path / "new.png")
        assert code == 1 and "other.png" in told.err and words in told.err
    counts = [200 + shot.astype(np.uint16) for shot in shots[:2]]
    counts[1][7, 7] = 65535  # a hot pixel
    for i, shot in enumerate(counts):
        write_picture(Picture(shot, None, {}), tmp_path / f"counts_{i}.tif")
    code, told = run_here("denoise", "--burst", tmp_path / "counts_*.tif", "-o", tmp_path / "counts.tif")
    assert code == 0 and "warning" not in told.err
    off = read_picture(tmp_path / "counts.tif").pixels.astype(float) - sum(counts) / 2
    assert np.abs(np.delete(off.reshape(-1, 3), 7 * 40 + 7, 0)).mean() < 25
    code, told = run_here("denoise", "--burst", tmp_path / "moved.png", "-o", tmp_path / "new.png")
    assert code == 1 and "two shots of a scene or more" in told.err and not (tmp_path / "new.png").exists()
    code, told = run_here(*burst, "-o", tmp_path / "shots" / "1.png", "--force")
    assert code == 1 and "is read and would be replaced" in told.err


def test_strength_blends_the_answer_with_the_picture(tmp_path, run_here):
    clean = skimage.data.astronaut()[60:108, 200:240]
    noisy = gaussian(torch.from_numpy(clean.copy()), 25, torch.Generator().manual_seed(0)).numpy()
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    made = {}
    for strength in ("0", "0.5", "1"):
        out = tmp_path / f"{strength}.png"
        code, told = run_here("denoise", tmp_path / "noisy.png", "-o", out, "--strength", strength)
        assert code == 0
        made[strength] = np.array(Image.open(out)).astype(float)
    assert (made["0"] == noisy).all()
    assert np.abs(made["0.5"] - (made["0"] + made["1"]) / 2).max() <= 1
    sigma = float(told.out.split("noise of about σ ")[1].split()[0])
    assert sigma == pytest.approx(25, abs=4)
    code, told = run_here("denoise", tmp_path / "noisy.png", "-o", tmp_path / "x.png", "--strength", "1.5")
    assert code == 1 and "--strength 1.5: expected a number, 0 ... 1" in told.err
    assert not (tmp_path / "x.png").exists()
