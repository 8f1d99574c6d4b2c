"""Photographs under simulated noise, and the training on them."""

import json
import math
import random
import signal

import PIL.Image
import pytest
import torch

import Miniproject_1.others.study.cbsd68 as cbsd68_module
import Miniproject_1.others.train as train_module
from Miniproject_1.model import Model, Training
from Miniproject_1.others import simulated
from Miniproject_1.others.photographs import embedded_photographs, open_photograph
from Miniproject_1.others.simulated import SimulatedShots, camera_shots, demosaic, mosaic, simulated_pair


@pytest.mark.parametrize("kind", simulated.KINDS)
def test_the_target_has_less_noise_and_both_have_the_same_mean(kind, tmp_path, monkeypatch):
    """Of each kind: the noise has zero mean, or what is learnt is not the clean picture."""
    PIL.Image.new("RGB", (128, 128), (90, 120, 150)).save(tmp_path / "flat.png")
    monkeypatch.setattr(simulated, "KINDS", {kind: 1})
    monkeypatch.setattr(simulated, "GRAINY", 0)
    pairs = [simulated_pair(tmp_path / "flat.png", str(seed)) for seed in range(40)]
    noisy, target = (torch.stack(part) for part in zip(*pairs, strict=True))
    middle = target.mean((2, 3), keepdim=True)
    assert (noisy - middle).std() > 2 * (target - middle).std()
    # The mean of some 160,000 pixels, of σ 35 at most, whose neighbours may be correlated.
    assert (noisy - target).mean().item() == pytest.approx(0, abs=0.5)


def test_a_pictures_own_grain_is_the_same_in_the_target(tmp_path, monkeypatch):
    """So it is learnt as something to keep."""
    PIL.Image.new("RGB", (128, 128), (90, 120, 150)).save(tmp_path / "flat.png")
    monkeypatch.setattr(simulated, "KINDS", {"weak": 1})
    monkeypatch.setattr(simulated, "GRAINY", 1)
    pairs = [simulated_pair(tmp_path / "flat.png", str(seed)) for seed in range(20)]
    noisy, target = (torch.stack(part) for part in zip(*pairs, strict=True))
    noisy, target = (each - each.mean((2, 3), keepdim=True) for each in (noisy, target))
    assert 0.5 < target.std() < simulated.GRAIN
    assert (noisy * target).mean().item() == pytest.approx(target.square().mean().item(), rel=0.05)


def test_noise_of_strong_shots_is_not_clipped(tmp_path, monkeypatch):
    PIL.Image.new("RGB", (128, 128), (0, 0, 0)).save(tmp_path / "black.png")
    monkeypatch.setattr(simulated, "KINDS", {"gaussian": 1})
    noisy, _ = simulated_pair(tmp_path / "black.png", "0")
    assert noisy.min() < -10


def test_a_pair_depends_on_its_seed_alone():
    path = embedded_photographs()[0]
    for seed in "0123":
        first, second = simulated_pair(path, seed), simulated_pair(path, seed)
        assert all(a.equal(b) for a, b in zip(first, second, strict=True))
    assert not simulated_pair(path, "0")[0].equal(simulated_pair(path, "1")[0])


def test_a_camera_without_colours_between_its_mosaic_gives_the_picture_back():
    flat = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1).expand(3, 16, 16)
    assert demosaic(mosaic(flat).unsqueeze(0))[0].allclose(flat)


def test_a_camera_correlates_neighbours_and_has_more_noise_where_there_is_more_light():
    dark, bright = torch.full((3, 64, 64), 20.0), torch.full((3, 64, 64), 120.0)
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    noises = [shot - mean for shot, mean in (camera_shots(dark, rng, generator) for _ in range(20))]
    noise = torch.stack(noises)
    correlation = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert 0.3 < correlation < 0.9
    linear = [
        ((camera_shots(each, random.Random(1), generator)[0] / 255) ** 2.2).std() for each in (dark, bright)
    ]
    assert linear[1] > 1.5 * linear[0]


def test_a_camera_leaves_grey_grey_whatever_its_colours():
    grey, generator = torch.full((3, 64, 64), 120.0), torch.Generator().manual_seed(0)
    for seed in range(10):
        _, mean = camera_shots(grey, random.Random(seed), generator)
        assert mean.mean((1, 2)).tolist() == pytest.approx([120, 120, 120], abs=1.5)


def test_a_cameras_colour_matrix_makes_the_noise_of_colours_stronger(monkeypatch):
    grey = torch.full((3, 64, 64), 120.0)

    def noise_of_colours():
        shots = (camera_shots(grey, random.Random(n), torch.Generator().manual_seed(n))[0] for n in range(10))
        return torch.stack([shot - shot.mean(0) for shot in shots]).std()

    stronger = noise_of_colours()
    monkeypatch.setattr(simulated, "_colour_matrix", lambda rng: torch.eye(3))
    assert stronger > 1.2 * noise_of_colours()


def test_some_cameras_sharpen_and_some_smooth():
    """Stripes come out stronger than they were, which no lens and no mosaic does, or by half weaker."""
    stripes = (120 + 30 * (torch.arange(64) * math.pi / 3).sin()).expand(3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    contrasts = []
    for seed in range(20):
        line = camera_shots(stripes, random.Random(seed), generator)[1].mean((0, 1))
        contrasts.append((line[8:56].std() / stripes[0, 0, 8:56].std()).item())
    assert max(contrasts) > 1 and min(contrasts) < 0.6


@pytest.fixture
def photos(tmp_path):
    """A folder of eight small photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(embedded_photographs()):
        PIL.Image.open(path).convert("RGB").crop((0, 0, 160, 160)).save(folder / f"{number}.png")
    return folder


def test_a_shard_is_the_same_each_time_and_has_a_patch_of_each_photograph(photos):
    shots = SimulatedShots(sorted(photos.iterdir()), seed=0)
    (noisy, target), again = shots[0], SimulatedShots(sorted(photos.iterdir()), seed=0)[0]
    assert len(noisy) == shots.pairs == len(list(photos.iterdir())) - len(shots.held_out[0][0])
    assert noisy.equal(again[0]) and target.equal(again[1])
    with pytest.raises(IndexError):
        shots[1]
    shots.epoch = 1
    assert not noisy.equal(shots[0][0])


def test_each_epoch_has_patches_of_its_own(photos, tmp_path, run_here, monkeypatch):
    read, asked = SimulatedShots.__getitem__, []

    def noted(self, index):
        asked.append(read(self, index))
        return asked[-1]

    monkeypatch.setattr(SimulatedShots, "__getitem__", noted)
    code, _ = run_here("pretrain", photos, "--simulate", "--epochs", 2, "-o", tmp_path / "model.pth")
    assert code == 0 and not asked[-2][0].equal(asked[-1][0])


def test_pretrain_trains_on_simulated_shots_and_goes_on(photos, tmp_path, run_here):
    out = tmp_path / "model.pth"
    code, said = run_here("pretrain", photos, "--simulate", "--epochs", 1, "-o", out)
    assert code == 0 and "PSNR" in said.out
    content = Model().load(out)
    assert content["recipe"]["swap"] is False and content["recipe"]["pairs"] == 6
    code, said = run_here("pretrain", photos, "--simulate", "--epochs", 1, "--seed", 1, "--resume", "-o", out)
    assert code == 1 and "made with" in said.err
    code, said = run_here("pretrain", photos, photos, "--simulate", "-o", tmp_path / "two.pth")
    assert code == 1 and "one folder of photographs, got 2" in said.err


def test_a_stopped_training_on_simulated_shots_goes_on_with_the_same_patches(photos, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.pth", tmp_path / "stopped.pth"
    options = {"epochs": 2, "seed": 0, "swap": False, "simulate": True, "batch_size": 2}
    train_module.train([photos], whole, **options)

    class Stopped(Training):
        def __iter__(self):
            for progress in super().__iter__():
                if self.step == 4:  # in the second epoch
                    signal.raise_signal(signal.SIGTERM)
                yield progress

    monkeypatch.setattr(train_module, "Training", Stopped)
    with pytest.raises(KeyboardInterrupt):
        train_module.train([photos], out, **options)
    monkeypatch.setattr(train_module, "Training", Training)
    train_module.train([photos], out, **options, resume=True)
    one, other = (Model().load(path) for path in (whole, out))
    assert one["record"] == other["record"] and len(one["record"]) == 2
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())


def test_some_patches_are_grey_and_some_enlarged(tmp_path, monkeypatch):
    """Of 60, as many as the shares ask for, and three standard deviations more or less."""
    stripes = PIL.Image.new("RGB", (128, 128), (200, 40, 90))
    for column in range(0, 128, 2):
        stripes.paste((40, 160, 220), (column, 0, column + 1, 128))
    stripes.save(tmp_path / "stripes.png")
    monkeypatch.setattr(simulated, "KINDS", {"weak": 1})
    monkeypatch.setattr(simulated, "GRAINY", 0)
    targets = [simulated_pair(tmp_path / "stripes.png", str(seed))[1] for seed in range(60)]
    grey = sum(each[0].equal(each[1]) for each in targets)
    # An enlarged stripe is wider than a pixel, so that some neighbours are nearly alike.
    enlarged = sum(bool((each[0].diff(dim=1).abs().mean(0) < 10).any()) for each in targets)
    for count, share in ((grey, simulated.GREY), (enlarged, simulated.ENLARGED)):
        assert abs(count - 60 * share) < 3 * math.sqrt(60 * share * (1 - share))


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_a_target_is_as_good_as_the_mean_of_64_shots(kind, tmp_path, monkeypatch):
    PIL.Image.new("RGB", (128, 128), (90, 120, 150)).save(tmp_path / "flat.png")
    monkeypatch.setattr(simulated, "KINDS", {kind: 1})
    for name in ("GRAINY", "GREY"):
        monkeypatch.setattr(simulated, name, 0)
    noisy, target = simulated_pair(tmp_path / "flat.png", "1")
    assert (noisy.var((1, 2)) / target.var((1, 2))).mean().item() == pytest.approx(64, rel=0.1)


def test_cbsd68_scores_photographs_under_noise_and_keeps_what_was_measured_of_bm3d(
    photos, tmp_path, run_here
):
    out = tmp_path / "table.json"
    out.write_text(json.dumps({"bm3d": {"15": {"psnr": 33.5, "seconds": 1}}}))
    assert run_here("cbsd68", photos, "--out", out)[0] == 0
    table = json.loads(out.read_text())
    assert table["bm3d"]["15"]["psnr"] == 33.5 and table["pictures"] == 8
    for sigma in (15, 25, 50):
        # Clipping what leaves [0, 255] makes it less.
        assert table["noisy"][str(sigma)]["psnr"] == pytest.approx(20 * math.log10(255 / sigma), abs=1.5)
        assert table["model"][str(sigma)]["psnr"] > table["noisy"][str(sigma)]["psnr"] + 3


def test_cbsd68_names_a_folder_without_photographs(tmp_path, run_here):
    code, told = run_here("cbsd68", tmp_path, "--out", tmp_path / "table.json")
    assert code == 1 and f"PHOTOS: no photograph in {tmp_path}" in told.err
    assert not (tmp_path / "table.json").exists()


def test_cbsd68_measures_bm3d_on_one_picture_after_the_other(tmp_path, run_here, monkeypatch):
    monkeypatch.setattr(cbsd68_module, "SIGMAS", (25,))
    for number, path in enumerate(embedded_photographs()[:2]):
        open_photograph(path).resize((48, 40)).save(tmp_path / f"{number}.png")
    out = tmp_path / "table.json"
    assert run_here("cbsd68", tmp_path, "--bm3d", "--out", out)[0] == 0
    table = json.loads(out.read_text())
    assert table["bm3d"]["25"]["psnr"] > table["noisy"]["25"]["psnr"] + 3


def test_cbsd68_keeps_what_it_has_measured_when_it_is_stopped(photos, tmp_path, run_here, monkeypatch):
    noisy = cbsd68_module._noisy

    def stopped(clean, sigma, number):
        if sigma == 25:
            raise KeyboardInterrupt
        return noisy(clean, sigma, number)

    monkeypatch.setattr(cbsd68_module, "_noisy", stopped)
    out = tmp_path / "table.json"
    assert run_here("cbsd68", photos, "--out", out)[0] != 0
    assert list(json.loads(out.read_text())["model"]) == ["0", "15"]
