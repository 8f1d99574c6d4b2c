"""A deeper network that begins with what a shallow one has learnt."""

import torch

from Miniproject_1.model import Model, UNet


def test_a_level_more_changes_no_answer_and_learns(train_data, tmp_path, run_here):
    few = [part[:64] for part in train_data]
    torch.manual_seed(0)
    shallow = Model("cpu")
    shallow.network = UNet((8, 16))
    shallow.train(*few, 1)
    shallow.save(tmp_path / "shallow.pth")
    assert run_here("deepen", tmp_path / "shallow.pth", tmp_path / "deep.pth")[0] == 0
    deep = Model("cpu")
    deep.load(tmp_path / "deep.pth")
    assert deep.network.shape == {"widths": [8, 16, 32], "blocks": 2}
    assert deep.predict(few[0]).equal(shallow.predict(few[0]))
    deep.train(*few, 1)
    assert all(weight.abs().max() > 0 for weight in deep.network.up[-1].parameters())


def test_what_is_no_model_is_refused(tmp_path, run_here):
    torch.save([1, 2], tmp_path / "list.pth")
    code, said = run_here("deepen", tmp_path / "list.pth", tmp_path / "deep.pth")
    assert code == 1 and "list.pth does not hold the weights" in said.err
    assert not (tmp_path / "deep.pth").exists()
