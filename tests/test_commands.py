"""The commands, end to end."""

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
    assert "seed 7, 2 epochs of 1,280 noisy pairs" in done.stdout
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


def test_bench_prints_speed_and_memory(data, monkeypatch, capsys):
    monkeypatch.setattr(bench_module, "LARGE", ((10, 3, 32, 32), (1, 3, 40, 50)))
    monkeypatch.setattr(bench_module, "TIMED", 640)
    bench_module.bench(data)
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    numbers = {line[0]: float(line[1].replace(",", "")) for line in words[-4:]}
    assert list(numbers) == ["training", "prediction", "memory"]
    assert all(number > 0 for number in numbers.values())
    assert 0.1 < numbers["memory"] < 4


def test_bad_data_ends_with_one_line(tmp_path):
    done = run("-m", "Miniproject_1", "pretrain", tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "train_data.pkl" in done.stderr
