"""Two shots of each scene in two folders: trained on, scored without clean pictures, checked."""

import math
import signal
from functools import cache, partial

import numpy as np
import pytest
import skimage.data
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
from Miniproject_1.others.metrics import noise_to_noise
from Miniproject_1.others.noises import gaussian, poisson
from Miniproject_1.others.photographs import embedded_photographs
from Miniproject_1.others.pictures import Picture, read_picture, write_picture
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
    out = tmp_path / "weights.pth"
    code, told = run_here("train", *folders, "-o", out, "--epochs", 2)
    assert code == 0, told.err
    assert "1 scene kept back" in told.out
    assert "warning" not in told.err
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
            np.square(each.pixels.astype(float) / each.scale - PARTS[name]).mean() for each in (before, after)
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
    assert one["record"] == other["record"] and len(one["record"]) == 2
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
    with pytest.raises(FileExistsError, match="has shots already"):
        write_shots(tmp_path, photos=None, sigma=25, counts=None, seed=2)
    with pytest.raises(ValueError, match="counts"):
        write_shots(tmp_path / "new", photos=None, sigma=25, counts=0, seed=0)
    assert not (tmp_path / "new").exists()
    a, b = (read_picture(path).tensor() for path in pairs[min(pairs)])
    assert not torch.equal(a, b) and max(map(abs, shift_between(a, b))) < 0.5
