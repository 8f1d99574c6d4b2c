"""Larger networks that begin with what a smaller one has learnt."""

import pytest
import torch

from Miniproject_1.model import Model, UNet


@pytest.fixture
def small(train_data, tmp_path):
    """A trained model, pairs to go on with, and its weights in `small.pth`."""
    few = [part[:64] for part in train_data]
    torch.manual_seed(0)
    model = Model("cpu")
    model.network = UNet((8, 16))
    model.train(*few, 1)
    model.save(tmp_path / "small.pth")
    return model, few


def test_a_level_more_changes_no_answer_and_learns(small, tmp_path, run_here):
    model, few = small
    assert run_here("deepen", tmp_path / "small.pth", tmp_path / "deep.pth")[0] == 0
    deep = Model("cpu")
    deep.load(tmp_path / "deep.pth")
    assert deep.network.shape == {"widths": [8, 16, 32], "blocks": 2, "equivariant": True}
    assert deep.predict(few[0]).equal(model.predict(few[0]))
    deep.train(*few, 1)
    assert all(weight.abs().max() > 0 for weight in deep.network.up[-1].parameters())


def test_filters_of_their_own_change_no_answer_and_learn(small, tmp_path, run_here):
    model, few = small
    assert run_here("untie", tmp_path / "small.pth", tmp_path / "untied.pth")[0] == 0
    untied = Model("cpu")
    untied.load(tmp_path / "untied.pth")
    assert untied.network.shape == {"widths": [8, 16], "blocks": 2, "equivariant": False}
    assert untied.predict(few[0]).equal(model.predict(few[0]))

    def one_group_alike():  # each filter has the first one's numbers, in other places
        numbers = untied.network.head.weight[:8].flatten(1).sort().values
        return numbers.equal(numbers[:1].expand_as(numbers))

    assert one_group_alike()
    untied.train(*few, 1)
    assert not one_group_alike()
    code, said = run_here("untie", tmp_path / "untied.pth", tmp_path / "again.pth")
    assert code == 1 and "untied.pth holds a network of ordinary convolutions already" in said.err


@pytest.mark.parametrize("command", ["deepen", "untie"])
def test_what_is_no_model_is_refused(command, tmp_path, run_here):
    torch.save([1, 2], tmp_path / "list.pth")
    code, said = run_here(command, tmp_path / "list.pth", tmp_path / "large.pth")
    assert code == 1 and "list.pth does not hold the weights" in said.err
    assert not (tmp_path / "large.pth").exists()
