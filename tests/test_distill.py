"""A teacher's answers as targets, and the training on them."""

import pytest
import torch
from conftest import ROOT

from Miniproject_1.model import Model, UNet
from Miniproject_1.others.course import load_images
from Miniproject_1.others.metrics import psnr
from Miniproject_1.others.sources import Shards
from Miniproject_1.others.study import distill as module


def test_the_targets_are_the_teachers_answers_and_pretrain_takes_them(data, tmp_path, run_here, monkeypatch):
    monkeypatch.setattr(module, "BLOCKS", 3)
    monkeypatch.setattr(module, "SHARD", 800)
    torch.manual_seed(0)
    network = UNet(blocks=3)
    torch.save(network.state_dict(), tmp_path / "former.pth")
    out = tmp_path / "distilled"
    command = ("distill", data, out, "--teacher", tmp_path / "former.pth", "--tune", 96)
    assert run_here(*command)[0] == 0
    paths = sorted(out.glob("train_data_*.pkl"))
    noisy, targets = (torch.cat(part) for part in zip(*map(load_images, paths), strict=True))
    assert len(paths) == 2 and noisy.equal(load_images(data / "train_data.pkl")[0])
    teacher = Model()
    teacher.network = UNet(blocks=3)
    teacher.load(out / "teacher.pth")
    assert any(
        not a.equal(b) for a, b in zip(teacher.network.parameters(), network.parameters(), strict=True)
    )
    assert targets.equal(teacher.predict(noisy).round().to(torch.uint8))

    student = ("pretrain", paths[1], "--epochs", 1, "-o")
    assert run_here(*student, tmp_path / "usual.pth")[0] == 0
    assert run_here(*student, tmp_path / "low.pth", "--floor", 1e-6)[0] == 0
    records = [Model().load(tmp_path / f"{name}.pth")["record"] for name in ("usual", "low")]
    assert records[0] != records[1]
    # Scored by how near answers are to the targets, and not the other way round.
    model, ((noisy, target),) = Model(), Shards(paths[1]).held_out
    model.load(tmp_path / "usual.pth")
    expected = psnr(model.predict(noisy), target).mean().item()
    assert records[0][0] | {"against the targets": pytest.approx(expected, abs=1e-3)} == records[0][0]
    assert "clean, estimated" not in records[0][0]
    code, told = run_here(*student, tmp_path / "none.pth", "--floor", 0)
    assert code == 1 and "--floor 0: expected a number above 0" in told.err


def test_another_networks_weights_are_no_teacher(data, tmp_path, run_here):
    torch.save(UNet().state_dict(), tmp_path / "small.pth")
    for small in (tmp_path / "small.pth", ROOT / "Miniproject_1" / "bestmodel.pth"):
        code, said = run_here("distill", data, tmp_path / "out", "--teacher", small)
        assert code == 1 and f"{small.name} does not hold the weights" in said.err
    assert not list(tmp_path.glob("out/*"))
