"""Two shots of each scene in two folders: trained on, scored without clean pictures, checked."""

import math
import os
import re
import resource
import signal
from functools import cache, partial
from itertools import count

import numpy as np
import pytest
import skimage.data
import tifffile
import torch
import torch.nn.functional as F
from conftest import run
from PIL import Image

import Miniproject_1.others.sources as sources_module
import Miniproject_1.others.train as train_module
from Miniproject_1 import Model
from Miniproject_1.model import Training
from Miniproject_1.others.course import load_images
from Miniproject_1.others.denoise import denoise
from Miniproject_1.others.machine import PHOTOGRAPHS
from Miniproject_1.others.metrics import noise_to_noise
from Miniproject_1.others.noises import gaussian, poisson
from Miniproject_1.others.photographs import embedded_photographs
from Miniproject_1.others.pictures import Picture, by_name, read_picture, write_picture
from Miniproject_1.others.shots import write_shots
from Miniproject_1.others.sources import Scenes, match, shift_between

# Parts of real photographs, of many sizes.
PARTS = {
    "astronaut": skimage.data.astronaut()[:200, 100:340],
    "cat": skimage.data.chelsea()[40:240, 80:300],
    "coffee": skimage.data.coffee()[100:290, 150:320],
    "rocket": skimage.data.rocket()[150:350, 250:400],
    "tissue": skimage.data.immunohistochemistry()[:160, :180],
    "camera": skimage.data.camera()[60:260, 150:350, None],
}
PLACES = {name: f"{name}.png" for name in PARTS} | {"tissue": "tissue.tif", "cat": "deeper/cat.png"}


@pytest.fixture
def folders(tmp_path):
    return two_shots(tmp_path, partial(gaussian, sigma=25))


def two_shots(tmp_path, noise):
    """Two folders of noisy shots: colour, grey, one of 16 bits, one in a folder of its own."""
    pair = [tmp_path / "first", tmp_path / "second"]
    generator = torch.Generator().manual_seed(0)
    for name, part in PARTS.items():
        for folder in pair:
            (folder / "deeper").mkdir(parents=True, exist_ok=True)
            pixels = noise(torch.from_numpy(part.copy()), generator=generator).numpy()
            if name == "tissue":
                pixels = pixels.astype(np.uint16) * 257
            write_picture(Picture(pixels, None, {}), folder / PLACES[name])
    return pair


def train(folders, out, *more):
    return run("-m", "Miniproject_1", "train", *folders, "-o", out, *more)


def test_own_shots_are_learnt_from_and_denoised_with(folders, tmp_path, monkeypatch, run_here):
    monkeypatch.setattr(sources_module, "LEAST", 500)
    monkeypatch.setattr(sources_module, "PATCH", 32)
    out = tmp_path / "weights.pth"
    code, told = run_here("train", *folders, "-o", out, "--epochs", 2, "--start", "none")
    assert code == 0, told.err
    assert "parts of 6 scenes kept back" in told.out
    (warning,) = (line for line in told.err.splitlines() if "warning" in line)
    assert "black or white" in warning  # the rocket's night sky
    noisy = float(re.search(r"shots themselves: clean, estimated (\S+) dB", told.out)[1])
    assert noisy == pytest.approx(20.2, abs=0.7)
    _, record = Model().load(out)["record"]
    assert f"clean, estimated {record['clean, estimated']:.3f} dB" in told.out
    assert record["clean, estimated"] > 23  # the shots themselves have 20.2
    with Image.open(tmp_path / "weights.png") as image:
        image.load()

    noisy = folders[0] / "coffee.png"
    done = run("-m", "Miniproject_1", "denoise", noisy, "-o", tmp_path / "out.png", "--weights", out)
    assert done.returncode == 0, done.stderr
    before, after = (
        np.square(read_picture(path).pixels.astype(float) - PARTS["coffee"]).mean()
        for path in (noisy, tmp_path / "out.png")
    )
    assert after < before / 2
    with pytest.raises(FileExistsError, match="already"):
        train_module.train(folders, out, epochs=1, seed=0)


@pytest.mark.parametrize("noise", [partial(gaussian, sigma=50), partial(poisson, counts=30)])
def test_strong_and_shot_noise_are_learnt_too(tmp_path, monkeypatch, noise):
    monkeypatch.setattr(sources_module, "PATCH", 32)
    monkeypatch.setattr(sources_module, "MOST", 256)
    folders, weights, out = two_shots(tmp_path, noise), tmp_path / "weights.pth", tmp_path / "out"
    train_module.train(folders, weights, epochs=2, seed=0, batch_size=16)
    denoise([str(folders[0])], out, weights=weights)
    for name, place in PLACES.items():
        before, after = (read_picture(folder / place) for folder in (folders[0], out))
        assert after.pixels.dtype == before.pixels.dtype, name  # 16 bits stay 16 bits
        assert after.pixels.shape == PARTS[name].shape, name  # and grey stays grey
        before, after = (
            np.square(each.pixels.astype(float) * (255 / each.bounds[1]) - PARTS[name]).mean()
            for each in (before, after)
        )
        assert after < before / 2, name


def test_a_stopped_training_on_shots_goes_on_to_the_same_end(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sources_module, "PATCH", 16)
    monkeypatch.setattr(sources_module, "MOST", 66)  # three steps an epoch
    whole, out = tmp_path / "whole.pth", tmp_path / "stopped.pth"
    train_module.train(folders, whole, epochs=2, seed=0)

    class Stopped(Training):
        def __iter__(self):
            for progress in super().__iter__():
                if self.step == 4:
                    signal.raise_signal(signal.SIGTERM)
                yield progress

    monkeypatch.setattr(train_module, "Training", Stopped)
    with pytest.raises(KeyboardInterrupt):
        train_module.train(folders, out, epochs=2, seed=0)
    assert Model().load(out)["training"]["step"] == 4
    monkeypatch.setattr(train_module, "Training", Training)
    train_module.train(folders, out, epochs=2, seed=0, resume=True)
    one, other = (Model().load(path) for path in (whole, out))
    assert one["record"] == other["record"] and len(one["record"]) == 3  # with the start
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())


@pytest.mark.parametrize(("sigma", "denoiser"), [(10, "pretrained"), (25, "blur")])
def test_the_estimate_without_clean_pictures_agrees_with_the_truth(pretrained, sigma, denoiser):
    generator = torch.Generator().manual_seed(0)
    blur = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    predict = cache({"pretrained": pretrained.predict, "blur": blur}[denoiser])  # asked twice for each shot
    pairs, error, count = [], 0.0, 0
    for part in 3 * list(PARTS.values()):  # so many that chance moves the estimate less than the bound below
        clean = Picture(part, None, {}).tensor()
        a, b = (clean + sigma * torch.randn(clean.shape, generator=generator) for _ in "ab")
        pairs.append((a, b))
        error += sum((predict(each) - clean).square().sum().item() for each in (a, b))
        count += 2 * clean.numel()
    measured, estimate = noise_to_noise(predict, pairs)
    truth = -10 * math.log10(error / count / 255**2)
    assert estimate == pytest.approx(truth, abs=0.1)
    assert measured < truth - 1
    assert math.isnan(noise_to_noise(lambda x: x, [(a, a)])[1])  # twice one shot: it says nothing


def test_an_estimate_of_few_pixels_claims_no_more_than_they_say():
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((1, 3, 50, 100), 128.0)
    for _ in range(5):
        a, b = (clean + 25 * torch.randn(clean.shape, generator=generator) for _ in "ab")
        # A perfect answer: of 15,000 values, no more than 39 dB can be told from it.
        assert noise_to_noise(lambda x: clean, [(a, b)])[1] < 20 * math.log10(255 / 25) + 10 * math.log10(75)


def test_shifted_shots_are_named(folders, monkeypatch, capsys):
    assert not Scenes(*folders, seed=0).misaligned
    for name, shift in (("coffee.png", (0, 2)), ("camera.png", (-3, 1))):
        picture = read_picture(folders[1] / name)
        write_picture(picture._replace(pixels=np.roll(picture.pixels, shift, (0, 1))), folders[1] / name)
    found = Scenes(*folders, seed=0).misaligned
    assert found.keys() == {"coffee", "camera"}
    assert found["coffee"] == pytest.approx((0, 2), abs=0.3)
    assert found["camera"] == pytest.approx((-3, 1), abs=0.3)
    monkeypatch.setattr(sources_module, "MOST", 1)  # a patch of each: it is warned of before the training
    train_module.train(folders, folders[0].parent / "weights.pth", epochs=1, seed=0)
    assert "warning: camera: the shots are shifted by -3.0 rows" in capsys.readouterr().err


def test_a_sky_or_a_blur_is_not_taken_for_a_shift():
    rows, columns = torch.meshgrid(torch.arange(300.0), torch.arange(400.0), indexing="ij")
    for clean in (torch.full((300, 400), 128.0), 60 + rows / 3, 200 - rows / 4 + columns / 9):
        for size in (slice(None), slice(40)):
            scene = clean[size, size].expand(1, 3, -1, -1)
            for seed in range(5):
                generator = torch.Generator().manual_seed(seed)
                a, b = (scene + 25 * torch.randn(scene.shape, generator=generator) for _ in "ab")
                assert shift_between(a, b) == (0, 0)
    photograph = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1)[None].float()
    generator = torch.Generator().manual_seed(0)
    a, b = (
        photograph[..., 100 + by : 400 + by, 100:400] + 25 * torch.randn(1, 3, 300, 300, generator=generator)
        for by in (1, 0)
    )
    assert shift_between(a, b) == pytest.approx((1, 0), abs=0.3)


def test_the_same_shot_twice_is_refused_and_a_shifted_scene_is_not_scored(folders, tmp_path):
    with pytest.raises(ValueError, match="the same picture, expected two shots"):
        Scenes(folders[0], folders[0], seed=0)
    for name in PLACES.values():
        picture = read_picture(folders[1] / name)
        write_picture(picture._replace(pixels=np.roll(picture.pixels, 3, 0)), folders[1] / name)
    scenes = Scenes(*folders, seed=0)
    assert len(scenes.misaligned) == len(PLACES) and not scenes.held_out


def test_patches_are_of_one_size_and_of_the_same_places(folders):
    scenes = Scenes(*folders, seed=0)
    a, b = scenes[0]
    assert a.shape == b.shape == (scenes.pairs, 3, 64, 64)
    # The two differ by nothing but noise: twice σ² = 2 · 25², a little less where it is clipped.
    assert 900 < (a - b).square().mean().item() < 1300
    again = Scenes(*folders, seed=0)
    assert torch.equal(again[0][0], a)
    for folder in folders:
        write_picture(Picture(np.zeros((20, 300, 1), np.uint8), None, {}), folder / "flat.png")
    a, _ = Scenes(*folders, seed=1)[0]
    assert a.shape[2:] == (64, 64)  # a small picture does not make all patches small: it is mirrored
    assert (a == 0).flatten(1).all(1).any()


def test_what_does_not_match_is_named(folders, tmp_path):
    out = tmp_path / "weights.pth"

    def refused(folders, words):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            train_module.train(folders, out, epochs=1, seed=0)

    (folders[1] / "coffee.png").rename(tmp_path / "kept.png")
    done = train(folders, out)
    assert done.returncode == 1 and "second has no coffee" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    Image.open(tmp_path / "kept.png").resize((99, 98)).save(folders[1] / "coffee.png")
    refused(folders, "99×98 pixels, expected the same")
    (folders[1] / "coffee.png").write_bytes(b"nothing")
    refused(folders, r"coffee\.png")
    refused([tmp_path / "nowhere", folders[1]], "nowhere")
    assert not out.exists()


def test_shots_are_made_of_photographs_to_try_it_on(tmp_path):
    done = run("-m", "Miniproject_1", "shots", tmp_path, "--counts", 30, "--seed", 1)
    assert done.returncode == 0, done.stderr
    pairs = match(tmp_path / "first", tmp_path / "second")
    noisy, clean = load_images(tmp_path / "val_data.pkl")
    assert len(pairs) > 24 and noisy.shape == clean.shape == (len(clean), 3, 192, 192)
    # Poisson noise: the variance is the value, times 255 / counts.
    middle = (clean > 60) & (clean < 120)
    noise = (noisy.float() - clean)[middle]
    assert noise.mean().abs() < 0.5
    assert noise.square().mean() == pytest.approx(clean[middle].float().mean().item() * 255 / 30, rel=0.1)
    trained_on = {name.rpartition("_")[0] for name in pairs}
    held_out = {path.stem for path in embedded_photographs()} - trained_on
    assert len(held_out) == 2
    with pytest.raises(FileExistsError, match="has a first already"):
        write_shots(tmp_path, photos=None, sigma=25, counts=None, seed=2)
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "val_data.pkl").write_bytes(b"the course's own")
    with pytest.raises(FileExistsError, match="has a val_data.pkl already"):
        write_shots(tmp_path / "course", photos=None, sigma=25, counts=None, seed=2)
    assert (tmp_path / "course" / "val_data.pkl").read_bytes() == b"the course's own"
    with pytest.raises(ValueError, match="counts"):
        write_shots(tmp_path / "new", photos=None, sigma=25, counts=0, seed=0)
    assert not (tmp_path / "new").exists()
    a, b = (read_picture(path).tensor() for path in pairs[min(pairs)])
    assert not torch.equal(a, b) and max(map(abs, shift_between(a, b))) < 0.5


def test_shots_of_jpeg_photographs(tmp_path):
    (tmp_path / "photographs").mkdir()
    for name in ("astronaut", "chelsea"):
        photograph = Image.fromarray(getattr(skimage.data, name)())
        photograph.save(tmp_path / "photographs" / f"{name}.jpg")
    # In a process of its own, where nothing else has loaded what writes PNG.
    command = ("shots", tmp_path / "shots", "--photos", tmp_path / "photographs")
    done = run("-m", "Miniproject_1", *command)
    assert done.returncode == 0, done.stderr
    assert list(by_name(tmp_path / "shots" / "first")) == list(by_name(tmp_path / "shots" / "second"))


@pytest.mark.parametrize("better", [False, True])
def test_pictures_are_learnt_from_photographs_pth_on_and_it_gets_no_worse(
    folders, tmp_path, monkeypatch, run_here, better
):
    monkeypatch.setattr(sources_module, "LEAST", 50)
    scores = iter([20.0, 25.0, 24.0, 26.0 if better else 23.0])  # the shots, before training, two epochs
    monkeypatch.setattr(train_module, "noise_to_noise", lambda denoise, scenes: (next(scores), 30.0))
    out = tmp_path / "weights.pth"
    code, told = run_here("train", *folders, "-o", out, "--epochs", 2)
    assert code == 0, told.err
    content = Model().load(out)
    assert content["recipe"]["start"] == PHOTOGRAPHS.name
    assert [each["epoch"] for each in content["record"]] == [0, 1, 2]
    model = Model()
    model.load(PHOTOGRAPHS)
    kept = all(value.equal(content["weights"][name]) for name, value in model.network.state_dict().items())
    assert kept is not better and (f"the weights are those of {PHOTOGRAPHS.name}" in told.out) is not better


def test_fine_tuning_keeps_a_share_unless_a_rate_is_given(folders, tmp_path, monkeypatch, run_here):
    monkeypatch.setattr(sources_module, "LEAST", 50)
    scores = count(20)  # always better
    monkeypatch.setattr(train_module, "noise_to_noise", lambda denoise, scenes: (next(scores), 30.0))
    ends = []
    for options in ((), ("--learning-rate", train_module.PICTURES_LEARNING_RATE)):
        out = tmp_path / f"{len(ends)}.pth"
        code, told = run_here("train", *folders, "-o", out, "--epochs", 1, *options)
        assert code == 0, told.err
        ends.append(Model().load(out)["weights"])
    model = Model()
    model.load(PHOTOGRAPHS)
    for name, start in model.network.state_dict().items():
        assert not ends[1][name].equal(start)
        torch.testing.assert_close(ends[0][name], start.lerp(ends[1][name], 1 - train_module.PICTURES_KEPT))


def test_counts_that_fill_little_of_16_bits_are_learnt_from_as_well(tmp_path, monkeypatch):
    """A microscope's 100 to 500 of 65535, and the same times a hundred."""
    monkeypatch.setattr(sources_module, "LEAST", 50)
    made = []
    for factor in (1, 100):
        generator = np.random.default_rng(0)
        for shot in ("first", "second"):
            for name, part in list(PARTS.items())[:3]:
                counts = generator.poisson(100 + 1.5 * part.astype(float).mean(2, keepdims=True)) * factor
                path = tmp_path / str(factor) / shot / f"{name}.tif"
                write_picture(Picture(counts.astype(np.uint16), None, {}), path)
        scenes = Scenes(*(tmp_path / str(factor) / shot for shot in ("first", "second")), seed=0)
        made.append(scenes[0] + scenes.held_out[0])
    for few, many in zip(*made, strict=True):
        torch.testing.assert_close(few, many)
    assert made[0][0].max() - made[0][0].min() > 150
    noise = made[0][0] - made[0][1]
    assert noise.mean().abs() < 1 < noise.std()  # both shots are scaled alike


SHOTS = 4  # of each scene
NAMES = ("astronaut", "cat", "coffee", "rocket")


@pytest.fixture
def bursts(tmp_path):
    """Noisy shots of scenes: name -> its shots, H×W×3 `uint8`."""
    generator = torch.Generator().manual_seed(0)
    parts = {name: torch.from_numpy(PARTS[name][:96, :64].copy()) for name in NAMES}
    return {
        name: [gaussian(part, 25, generator).numpy() for _ in range(SHOTS)] for name, part in parts.items()
    }


def lay_out(bursts, folder, place):
    """Write the shots where `place` of scene and number says; a Mac's hidden file beside each."""
    for name, shots in bursts.items():
        for i, shot in enumerate(shots):
            path = folder / place.format(name=name, i=i, j=i + 1)
            write_picture(Picture(shot, None, {}), path)
            path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")


LAYOUTS = {
    "a folder a shot": ("shot{i}/{name}.png", ["shot0", "shot1", "shot2", "shot3"]),
    "a folder a scene": ("all/{name}/{i}.png", ["all"]),
    "numbers": ("all/{name}_{j}.png", ["all"]),
    "numbers in folders": ("all/deeper/{name}-00{j}.png", ["all"]),
    "numbers by folder": ("shot{i}/{name}_{j}.png", ["shot0", "shot1", "shot2", "shot3"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_shots_of_a_scene_are_found_and_all_are_used(bursts, tmp_path, monkeypatch, layout):
    monkeypatch.setattr(sources_module, "PATCH", 16)
    place, folders = LAYOUTS[layout]
    lay_out(bursts, tmp_path, place)
    scenes = Scenes(*(tmp_path / folder for folder in folders), seed=0)
    assert list(scenes.shots.values()) == [SHOTS] * len(NAMES) and scenes.skipped["hidden"] == 16
    assert not scenes.swap and not scenes.misaligned
    assert_all_are_used(scenes, bursts)


def assert_all_are_used(scenes, bursts):
    """Every shot of all scenes but one is learnt from, to guess the mean of the others."""
    (held_out,) = scenes.held_out
    kept_back = next(
        name for name in NAMES if (held_out[0][0, :, 0, 0].numpy() == bursts[name][0][0, 0]).all()
    )
    inputs, targets = scenes[0]
    assert inputs.dtype == torch.uint8 and targets.dtype == torch.float32
    views = {  # where a patch of 16×16 pixels can come from: its first row of pixels, as bytes
        (name, i): {
            shot[top, left : left + 16].tobytes(): (top, left)
            for top in range(shot.shape[0] - 15)
            for left in range(shot.shape[1] - 15)
        }
        for name, shots in bursts.items()
        for i, shot in enumerate(shots)
    }
    used = set()
    for noisy, target in zip(inputs, targets, strict=True):
        row = noisy[:, 0].T.contiguous().numpy().tobytes()
        ((name, i), place_of), *others = [(key, found[row]) for key, found in views.items() if row in found]
        assert not others
        used.add((name, i))
        window = tuple(slice(start, start + 16) for start in place_of)
        rest = [shot[window].astype(np.float32) for j, shot in enumerate(bursts[name]) if j != i]
        np.testing.assert_allclose(target.permute(1, 2, 0), np.mean(rest, 0), atol=1e-3)
    assert used == {(name, i) for name in NAMES if name != kept_back for i in range(SHOTS)}


def write_stack(planes, path):
    """Planes of H×W×3 in a file's own kind of stack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.stack(planes))
    elif path.suffix == ".tif":
        tifffile.imwrite(path, np.stack(planes), photometric="rgb")
    else:
        first, *others = map(Image.fromarray, planes)
        options = {"lossless": True} if path.suffix == ".webp" else {}
        first.save(path, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".png", ".webp"])
def test_planes_of_a_file_are_shots_of_a_scene(bursts, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(sources_module, "PATCH", 16)
    for name, shots in bursts.items():
        write_stack(shots, tmp_path / "all" / ("deeper" if name == "cat" else "") / f"{name}{suffix}")
    scenes = Scenes(tmp_path / "all", seed=0)
    assert sorted(scenes.shots) == ["astronaut", "coffee", "deeper/cat", "rocket"]
    assert set(scenes.shots.values()) == {SHOTS} and not scenes.swap
    assert_all_are_used(scenes, bursts)


def test_the_same_planes_of_files_of_one_name_are_shots_of_a_scene(bursts, tmp_path, monkeypatch, run_here):
    """Two shots of a stack whose planes show different scenes."""
    monkeypatch.setattr(sources_module, "PATCH", 16)
    monkeypatch.setattr(sources_module, "MOST", 64)
    planes = [[shots[i] for shots in bursts.values()] for i in range(SHOTS)]
    for i, folder in enumerate(("first", "second")):
        write_stack(planes[i], tmp_path / folder / "one.tif")
        write_stack(planes[i + 2][:3], tmp_path / folder / "two.tif")
    folders = (tmp_path / "first", tmp_path / "second")
    scenes = Scenes(*folders, seed=0)
    assert scenes.swap and list(scenes.shots.values()) == [2] * 7 and "two, plane 3" in scenes.shots
    assert len(scenes.held_out) in (3, 4)  # all planes of a file or none, as they may be much alike
    code, told = run_here("train", *folders, "-o", tmp_path / "model.pth", "--epochs", 1)
    assert code == 0 and "7 scenes of 2 shots" in told.out, told.err

    write_stack(planes[1][:2], tmp_path / "second" / "one.tif")
    with pytest.raises(ValueError, match=r"one\.tif and .*one\.tif: 4 and 2 planes"):
        Scenes(*folders, seed=0)
    write_stack(planes[1][::-1], tmp_path / "second" / "one.tif")
    with pytest.raises(ValueError, match=r"one\.tif, plane 1 and .*one\.tif, plane 1: different scenes"):
        Scenes(*folders, seed=0)
    (tmp_path / "second" / "one.tif").rename(tmp_path / "second" / "other.tif")
    with pytest.raises(ValueError, match=r"no one.*planes are the shots go into one folder"):
        Scenes(*folders, seed=0)
    with pytest.raises(ValueError, match=r"plane 1 and .*plane 2: different scenes"):
        Scenes(folders[0], seed=0)
    write_picture(Picture(planes[0][0], None, {}), tmp_path / "first" / "single.png")
    with pytest.raises(ValueError, match=r"\.tif has . planes and .*single\.png one"):
        Scenes(folders[0], seed=0)


@pytest.mark.parametrize("number", [1, 4, 10])
def test_of_few_scenes_a_part_of_each_is_kept_back(tmp_path, monkeypatch, number):
    """An eighth at the end of the longer side, which is black here and nowhere else."""
    monkeypatch.setattr(sources_module, "PATCH", 32)
    generator = torch.Generator().manual_seed(0)
    folders = tmp_path / "first", tmp_path / "second"
    for i in range(number):
        clean = torch.from_numpy(skimage.data.coffee()[i * 20 : i * 20 + 160, :240].copy())
        for folder in folders:
            pixels = gaussian(clean, 10, generator).clamp_min(1).numpy()
            pixels[:, 210:] = 0
            pixels = np.rot90(pixels) if i % 2 else pixels  # upright ones too
            write_picture(
                Picture(np.ascontiguousarray(pixels[:: -1 if i % 2 else 1]), None, {}), folder / f"{i}.png"
            )
    scenes = Scenes(*folders, seed=0)
    if number == 10:
        assert not scenes.parts and len(scenes.held_out) == 1 and (scenes[0][0] == 0).any()
        return
    assert scenes.parts and len(scenes.held_out) == number
    for shots in scenes.held_out:
        assert len(shots) == 2 and not any(shot.any() for shot in shots)
        assert shots[0][0, 0].numel() == 160 * 30
    assert all((shots > 0).all() for shots in scenes[0])


def test_two_shots_of_one_scene_are_estimated_too(tmp_path, monkeypatch, run_here):
    monkeypatch.setattr(sources_module, "PATCH", 32)
    monkeypatch.setattr(sources_module, "LEAST", 64)
    generator = torch.Generator().manual_seed(0)
    for folder in ("first", "second", "small/1", "small/2"):
        part = PARTS["camera"] if folder in ("first", "second") else PARTS["camera"][:100, :90]
        pixels = gaussian(torch.from_numpy(part.copy()), 25, generator).numpy()
        write_picture(Picture(pixels, None, {}), tmp_path / folder / "camera.png")
    options = ("--epochs", 9, "--patience", 1, "--learning-rate", 1e-9)
    out = tmp_path / "model.pth"
    code, told = run_here("train", tmp_path / "first", tmp_path / "second", "-o", out, *options)
    assert code == 0 and "parts of 1 scene kept back" in told.out, told.err
    record = Model().load(out)["record"]
    assert len(record) < 9 and all(each["clean, estimated"] > 23 for each in record)
    code, told = run_here(
        "train", *(tmp_path / "small" / i for i in "12"), "-o", tmp_path / "s.pth", *options
    )
    assert code == 1 and "pairs enough to keep some back" in told.err


def test_counts_of_any_scale_are_trained_on_and_denoised_as_well(tmp_path, monkeypatch, run_here):
    """A microscope's 100 to 500 of 65535, and the same times 64: the weights need no scale."""
    monkeypatch.setattr(sources_module, "PATCH", 32)
    monkeypatch.setattr(sources_module, "MOST", 160)
    few = ("coffee", "camera", "rocket")
    clean = {name: 100 + 400 / 255 * PARTS[name].mean(2, keepdims=True) for name in few}
    errors = []
    for factor in (1, 64):
        generator, place = np.random.default_rng(0), tmp_path / str(factor)
        for shot in ("first", "second"):
            for name, counts in clean.items():
                noisy = factor * 4 * generator.poisson(counts / 4)
                write_picture(Picture(noisy.astype(np.uint16), None, {}), place / shot / f"{name}.tif")
        weights, out = place / "weights.pth", place / "out.tif"
        options = ("--start", "none", "--epochs", 1, "--batch-size", 16)
        code, told = run_here("train", place / "first", place / "second", "-o", weights, *options)
        assert code == 0, told.err
        code, told = run_here("denoise", place / "first" / "coffee.tif", "-o", out, "--weights", weights)
        assert code == 0, told.err
        before, after = (
            np.square(read_picture(path).pixels / factor - clean["coffee"]).mean() ** 0.5
            for path in (place / "first" / "coffee.tif", out)
        )
        assert after < before / 1.5
        errors.append(after)
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_many_shots_are_trained_on_and_scored_twice(bursts, tmp_path, monkeypatch, run_here):
    monkeypatch.setattr(sources_module, "PATCH", 16)
    monkeypatch.setattr(sources_module, "MOST", 64)
    lay_out(bursts, tmp_path, "shot{i}/{name}.png")
    folders = [tmp_path / f"shot{i}" for i in range(SHOTS)]
    swaps = []

    class Watched(Training):
        def __init__(self, *arguments, **options):
            swaps.append(options["swap"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(train_module, "Training", Watched)
    out = tmp_path / "model.pth"
    code, told = run_here("train", *folders, "-o", out, "--epochs", 1, "--start", "none")
    assert code == 0 and swaps == [False], told.err
    assert "4 scenes of 4 shots" in told.out and "skipped: 16 hidden" in told.out
    content = Model().load(out)
    (record,) = content["record"]
    assert content["recipe"]["swap"] is False
    assert f"mean of other shots {record['mean of other shots']:.3f} dB  clean, estimated" in told.out
    assert record["clean, estimated"] > record["mean of other shots"] > 15
    code, told = run_here("train", *folders[:2], "-o", tmp_path / "two.pth", "--epochs", 1)
    assert code == 0 and swaps == [False, True] and "noise to noise" in told.out
    code, told = run_here("train", tmp_path / "shot0", "-o", tmp_path / "one.pth")
    assert code == 1 and "expected a folder for each scene" in told.err
    code, told = run_here("train", *folders, "-o", tmp_path / "shot3" / "in.pth")
    assert code == 1 and "would be a picture of" in told.err


def test_scenes_with_more_and_fewer_shots_and_those_with_one(bursts, tmp_path):
    del bursts["cat"][2:]
    lay_out(bursts, tmp_path, "shot{i}/{name}.png")
    folders = [tmp_path / f"shot{i}" for i in range(SHOTS)]
    scenes = Scenes(*folders, seed=0)
    assert scenes.shots == {"astronaut": 4, "cat": 2, "coffee": 4, "rocket": 4} and not scenes.swap
    (folders[1] / "cat.png").rename(folders[1] / "dog.png")
    with pytest.raises(ValueError, match=r"has no cat: each picture needs a second shot"):
        match(*folders)


def test_a_scene_may_have_more_shots_than_files_may_be_open(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for i in range(60):
        pixels = gaussian(torch.from_numpy(PARTS["cat"][:24, :24].copy()), 25, generator).numpy()
        write_picture(Picture(pixels, None, {}), tmp_path / "cat" / f"{i}.png")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
    try:
        assert Scenes(tmp_path, seed=0).shots == {"cat": 60}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_shots_of_signed_bytes_keep_their_numbers_and_nan_is_named(tmp_path):
    generator = np.random.default_rng(0)
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
        noisy = PARTS["camera"][:100, :100, 0] / 4 - 30 + 5 * generator.standard_normal((100, 100))
        np.save(folder / "camera.npy", noisy.round().astype(np.int8))
    a, b = Scenes(*folders, seed=0)[0]
    first, second = (np.load(folder / "camera.npy").astype(float) for folder in folders)
    scale = 255 / (first.max() - first.min())
    assert (a - b).std().item() == pytest.approx(scale * (first - second).std(), rel=0.05)
    second[7, 7] = np.nan
    np.save(folders[1] / "camera.npy", second)
    with pytest.raises(ValueError, match=r"second.camera\.npy: NaN"):
        Scenes(*folders, seed=0)


def test_a_hot_pixel_in_a_second_shot_ends_nothing(tmp_path, monkeypatch, run_here):
    generator = np.random.default_rng(0)
    monkeypatch.setattr(sources_module, "MOST", 32)
    for folder in ("first", "second"):
        counts = generator.poisson(100 + 1.5 * PARTS["camera"][:160, :160].astype(float)).astype(np.uint16)
        counts[150, 80] = 100 if folder == "first" else 40_000  # in the part that is kept back
        write_picture(Picture(counts, None, {}), tmp_path / folder / "camera.tif")
    folders = tmp_path / "first", tmp_path / "second"
    code, told = run_here("train", *folders, "-o", tmp_path / "model.pth", "--epochs", 1)
    assert code == 0 and "clean, estimated" in told.out, told.err


def test_shots_of_other_types_of_numbers_are_refused(tmp_path):
    for folder, scale in (("first", np.uint8(1)), ("second", np.uint16(257))):
        (tmp_path / folder).mkdir()
        Image.fromarray(PARTS["camera"][:100, :100, 0] * scale).save(tmp_path / folder / "camera.png")
    for folders, words in (
        (("first", "second"), r"second.camera\.png: uint16, expected uint8"),
        (("second", "first"), r"first.camera\.png: uint8, expected uint16"),
    ):
        with pytest.raises(ValueError, match=words):
            Scenes(*(tmp_path / folder for folder in folders), seed=0)


def test_names_that_only_look_like_shots_are_refused(tmp_path):
    """A camera's numbers, in one folder: pictures of different scenes."""
    for number, part in enumerate(PARTS.values()):
        noisy = gaussian(torch.from_numpy(part.copy()), 25, torch.Generator().manual_seed(0)).numpy()
        write_picture(Picture(noisy[:160, :150], None, {}), tmp_path / "card" / f"IMG_{number:04}.png")
    with pytest.raises(ValueError, match=r"IMG_0000\.png and .*IMG_0001\.png: different scenes"):
        Scenes(tmp_path / "card", seed=0)


def test_the_light_may_change_between_shots_and_noise_may_be_strong():
    part = torch.from_numpy(PARTS["coffee"].copy()).permute(2, 0, 1)[None].float()
    rows = torch.linspace(-60, 60, part.shape[2]).view(-1, 1)
    generator = torch.Generator().manual_seed(0)
    for scene, other in ((part, part + rows), (part, part * 0.4), (part * 0 + 90, part * 0 + 90)):
        for sigma in (1, 25, 200):
            a, b = (each + sigma * torch.randn(part.shape, generator=generator) for each in (scene, other))
            assert not sources_module.differ(a, b)
    assert sources_module.differ(part, part.flip(-1))


@pytest.mark.parametrize("number", [2, 5])
def test_the_score_against_the_mean_of_other_shots_is_near_the_truth(number):
    generator = torch.Generator().manual_seed(0)
    blur = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    scenes, error, count = [], 0.0, 0
    for part in PARTS.values():
        clean = Picture(part, None, {}).tensor()
        shots = tuple(clean + 20 * torch.randn(clean.shape, generator=generator) for _ in range(number))
        scenes.append(shots)
        error += sum((blur(shot) - clean).square().sum().item() for shot in shots)
        count += number * clean.numel()
    measured, estimate = noise_to_noise(blur, scenes)
    assert estimate == pytest.approx(-10 * math.log10(error / count / 255**2), abs=0.1)
    assert measured == pytest.approx(-10 * math.log10((error / count + 400 / (number - 1)) / 255**2), abs=0.1)
