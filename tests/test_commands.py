"""The commands, end to end."""

import json

import torch
from conftest import ROOT, run
from PIL import Image

import Miniproject_1.others.bench as bench_module


def test_demo_writes_the_picture_it_names(tmp_path):
    done = run("-m", "Miniproject_1", "demo", "--out", tmp_path / "picture.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        image.load()
        assert min(image.size) > 500


def test_pretrain_logs_its_recipe_and_writes_a_state_dict(data, tmp_path):
    out = tmp_path / "weights.pth"
    done = run("-m", "Miniproject_1", "pretrain", data, "--epochs", 2, "--seed", 7, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "seed 7, learning rate 0.002 from scratch, 2 epochs of 1,280 noisy pairs" in done.stdout
    epochs = [line for line in done.stdout.splitlines() if line.startswith("epoch")]
    assert len(epochs) == 2
    noisy = float(done.stdout.split("noisy input has")[1].split()[0])
    assert float(epochs[-1].split("PSNR")[1].split()[0]) > noisy
    shipped, made = (
        torch.load(path, weights_only=True) for path in (ROOT / "Miniproject_1" / "bestmodel.pth", out)
    )
    assert [each.shape for each in made.values()] == [each.shape for each in shipped.values()]
    assert list(made) == list(shipped)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_pretrain_goes_on_from_given_weights(data, tmp_path):
    shipped, out = ROOT / "Miniproject_1" / "bestmodel.pth", tmp_path / "weights.pth"
    options = ("--start", shipped, "--learning-rate", 1e-9, "--epochs", 1)
    done = run("-m", "Miniproject_1", "pretrain", data, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "learning rate 1e-09 from bestmodel.pth" in done.stdout
    before, after = (torch.load(path, weights_only=True) for path in (shipped, out))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-4, rtol=0)
    assert not list(tmp_path.glob("*.part"))


def test_bench_measures_both_ways_of_training(data, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench_module, "LARGE", ((10, 3, 32, 32), (1, 3, 40, 50)))
    for name, value in (("TIMED", 320), ("SHORT", 320), ("CAP", 2), ("TARGET", 18.5)):
        monkeypatch.setattr(bench_module, name, value)
    bench_module.bench(data, tmp_path / "bench.json")
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "bench.json").read_text())
    rates = result["training_pairs_per_second"]
    assert len(rates) == 3
    assert all(f"{rate:.0f} pairs/s" in printed for rate in rates.values())
    assert all(rate > 0 for rate in result["prediction_images_per_second"].values())
    reached = result["to_target"]
    assert len(reached["original"]["psnr"]) == 2 and len(reached["this project"]["psnr"]) == 1
    ratio = reached["original"]["seconds"][-1] / reached["this project"]["seconds"][-1]
    assert f"{ratio:.1f}" in printed
    assert all(0.1 < peak < 4 for peak in result["predict_peak_gib"].values())
    assert len(result["predict_peak_gib"]) == 2


def test_bad_data_ends_with_one_line(tmp_path):
    done = run("-m", "Miniproject_1", "pretrain", tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "train_data.pkl" in done.stderr
