"""The contract of `Model`, on real noisy pairs."""

import copy
import os
import shutil
import signal
import warnings
from threading import get_ident

import numpy as np
import pytest
import skimage.data
import torch
from conftest import ROOT, closed, run, same_weights
from torch import nn

import Miniproject_1.model as model_module
from Miniproject_1 import Model
from Miniproject_1.model import (
    EquivariantConv2d,
    KernelMuon,
    Training,
    UNet,
    dihedral,
    psnr_loss,
    whole_kernel,
)
from Miniproject_1.others.machine import PHOTOGRAPHS
from Miniproject_1.others.metrics import psnr

BACK = (0, 1, 2, 3, 4, 6, 5, 7)  # the way of `dihedral` that undoes each
GREY_LEVEL = 1 / 255  # the most by which batching and tiling may change a pixel, in grey levels


def score(model, val_data):
    noisy, clean = val_data
    return psnr(model.predict(noisy), clean).mean().item()


def weights(model):
    return copy.deepcopy(model.network.state_dict())


# ------------------------------------------------------------------------------------------------
# Importing and loading


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        (
            ROOT,
            "from Miniproject_1 import Model as M\nfrom Miniproject_1.model import Model\nassert M is Model",
        ),
        ("elsewhere", "from project.Miniproject_1.model import Model"),
        (ROOT / "Miniproject_1", "from model import Model"),
    ],
)
def test_works_under_any_import_path_with_torch_alone(tmp_path, folder, line):
    if folder == "elsewhere":
        folder = tmp_path / folder
        shutil.copytree(ROOT / "Miniproject_1", folder / "project" / "Miniproject_1")
    blocked = "numpy PIL skimage matplotlib tqdm"
    script = f"""
import sys
sys.path.insert(0, {str(folder)!r})
sys.modules.update(dict.fromkeys({blocked!r}.split()))
{line}
import torch
model = Model()
x = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
model.train(x, x, num_epochs=2)
model.load_pretrained_model()
print(tuple(model.predict(x).shape))
"""
    done = run("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert lines[2] == "(3, 3, 32, 32)"


def test_pretrained_model_denoises_real_photographs(pretrained, val_data):
    noisy, clean = val_data
    assert score(pretrained, val_data) > psnr(noisy, clean).mean().item() + 3


@pytest.fixture
def elsewhere(tmp_path):
    """`Model` of a copy of model.py in a folder of its own, with the path of its bestmodel.pth."""
    shutil.copy(ROOT / "Miniproject_1" / "model.py", tmp_path / "copied_model.py")
    import importlib.util

    spec = importlib.util.spec_from_file_location("copied_model", tmp_path / "copied_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model(), tmp_path / "bestmodel.pth"


@pytest.mark.parametrize("damage", [*range(10), "missing", "folder", "random", "hostile", "other", "list"])
def test_bad_weights_are_refused_and_nothing_changes(elsewhere, canary, damage):
    model, path = elsewhere
    whole = (ROOT / "Miniproject_1" / "bestmodel.pth").read_bytes()
    hostile, canary_file = canary
    other = {name: value for name, value in model.network.state_dict().items()}
    first = next(iter(other))
    other[first] = other[first][:-1]
    if isinstance(damage, int):
        path.write_bytes(whole[: len(whole) * damage // 10])
    elif damage == "folder":
        path.mkdir()
    elif damage == "random":
        path.write_bytes(torch.arange(999).numpy().tobytes())
    elif damage != "missing":
        torch.save({"hostile": hostile, "other": other, "list": [1, 2]}[damage], path)
    before = weights(model)
    error = {"missing": FileNotFoundError, "folder": IsADirectoryError}.get(damage, ValueError)
    with pytest.raises(error, match="bestmodel.pth"):
        model.load_pretrained_model()
    assert same_weights(model.network, before)
    assert not canary_file.exists()


def test_weights_without_permission_are_named(tmp_path):
    model = Model()
    before = weights(model)
    (tmp_path / "bestmodel.pth").write_bytes(b"secret")
    with closed(tmp_path / "bestmodel.pth") as path, pytest.raises(PermissionError, match=r"bestmodel\.pth"):
        model.load(path)
    assert same_weights(model.network, before)


def test_saved_models_come_back(tmp_path, train_data, val_data):
    noisy, _ = val_data
    model = Model()
    model.train(*(part[:64] for part in train_data), 1)
    model.save(tmp_path / "weights.pth", record={"epochs": 1})
    other = Model()
    assert other.load(tmp_path / "weights.pth")["record"] == {"epochs": 1}
    assert torch.equal(other.predict(noisy), model.predict(noisy))
    other.train(*(part[:64] for part in train_data), 1)
    other.load_pretrained_model()


def test_weights_bring_the_shape_of_their_network(tmp_path, pretrained, train_data, val_data):
    few, noisy = [part[:64] for part in train_data], val_data[0][:8]
    deep = Model()
    deep.network = UNet((8, 16, 24), blocks=1).to(deep.device)
    deep.train(*few, 1)
    deep.save(tmp_path / "deep.pth")
    model = Model()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            model.load(tmp_path / "deep.pth")
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.network.shape == {"widths": [8, 16, 24], "blocks": 1, "equivariant": True}
    assert torch.equal(model.predict(noisy), deep.predict(noisy))
    model.train(*few, 1)
    model.load_pretrained_model()
    assert torch.equal(model.predict(noisy), pretrained.predict(noisy))


def test_a_new_model_has_the_sizes_of_the_pretrained_weights_and_filters_that_are_shared(pretrained):
    assert pretrained.network.shape == Model().network.shape | {"equivariant": False}
    assert type(pretrained.network) is UNet


def test_saving_replaces_files_and_what_links_lead_to_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")  # as special as a device
    model = Model()
    model.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert same_weights(model.network, Model().load(tmp_path / "file")["weights"])
    for special in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match=tmp_path.name):
            model.save(special)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]


def test_callers_default_type_and_device_change_nothing(pretrained, train_data, val_data):
    few, noisy = [part[:40] for part in train_data], val_data[0][:8]
    plain, ends = pretrained.predict(noisy), []
    torch.set_default_dtype(torch.float64)
    try:
        model = Model()
        model.load_pretrained_model()
        assert torch.equal(model.predict(noisy), plain)
        torch.manual_seed(0)
        model.train(*few, 1)
        ends.append(weights(model))
    finally:
        torch.set_default_dtype(torch.float32)
    for elsewhere in ("cpu", "meta"):  # as a GPU would be
        model = Model()
        model.load_pretrained_model()
        with torch.device(elsewhere):
            torch.manual_seed(0)
            model.train(*few, 1)
        ends.append(weights(model))
    assert all(same_weights(model.network, each) for each in ends)


def test_a_shape_of_too_many_levels_is_refused(tmp_path, pretrained):
    deep = Model("cpu")
    deep.network = UNet([8] * 70, blocks=0)
    deep.save(tmp_path / "deep.pth")
    before = weights(pretrained)
    with pytest.raises(ValueError, match="does not hold the weights"):
        pretrained.load(tmp_path / "deep.pth")
    assert same_weights(pretrained.network, before)
    for widths in ([], [0, 0], [-8]):
        with pytest.raises(ValueError, match="widths: expected multiples of 8"):
            UNet(widths)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 1),
        ("weights", None),
        ("weights", {}),
        ("shape", {"widths": [48, 96, 192], "blocks": 2}),
        ("shape", {"widths": [8 * 10**9, 96], "blocks": 2}),
        ("shape", {"widths": [48] * 10**6, "blocks": 2}),
        ("shape", {"widths": [48] * 10**6, "blocks": 0}),
        ("shape", {"widths": [48, 95], "blocks": 2}),
        ("shape", {"widths": "48", "blocks": -1}),
        ("shape", {"depth": 2}),
        ("shape", [48, 96]),
        ("head.bias", None),
        ("head.bias", torch.zeros(0)),
        ("head.bias", torch.zeros(()).expand(1 << 40)),
        ("head.bias", torch.zeros(2)),
        ("head.bias", torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])),
        ("tail.bias", torch.full((3,), torch.nan)),
        ("head.bias", torch.zeros(6, dtype=torch.int64)),
        ("down.1.bias", torch.zeros(1)),
        ("bottom.2.conv1.bias", torch.zeros(2)),
        (7, torch.zeros(1)),
    ],
)
def test_files_that_are_no_saved_model_are_refused_and_nothing_changes(tmp_path, key, value):
    path = tmp_path / "weights.pth"
    Model().save(path)
    content = torch.load(path, weights_only=True)
    torch.save(
        content | ({key: value} if key in content else {"weights": content["weights"] | {key: value}}), path
    )
    model = Model()
    before = weights(model)
    with pytest.raises(ValueError, match=r"weights\.pth"):
        model.load(path)
    assert same_weights(model.network, before)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"weights\.pth"):
        model.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.load(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------
# Training


def test_learns_from_noisy_pairs_alone(train_data, val_data):
    noisy, clean = val_data
    before = psnr(noisy, clean).mean().item()
    torch.manual_seed(0)
    model = Model()
    assert score(model, val_data) == pytest.approx(before, abs=0.01)  # an untrained one changes nothing
    losses = []
    few = (part[:640] for part in train_data)
    model.train(*few, 3, after_epoch=lambda epoch, loss: losses.append((epoch, loss)))
    assert score(model, val_data) > before + 2
    assert [epoch for epoch, _ in losses] == [1, 2, 3]
    assert losses[-1][1] < losses[0][1]


def test_the_losss_best_guess_is_the_mean_of_skewed_noise():
    """Which Noise2Noise rests on: a median would be 0.06 off, here where noise varies between images."""
    torch.manual_seed(0)
    strength = torch.rand(500, 1, 1, 1) + 0.5
    target = 0.2 * strength * (torch.empty(500, 3, 32, 32).exponential_() - 1)
    guesses = torch.linspace(-0.1, 0.1, 201)
    losses = [psnr_loss(torch.full_like(target, guess), target) for guess in guesses]
    assert guesses[torch.stack(losses).argmin()].item() == pytest.approx(0, abs=0.002)


def test_one_more_epoch_does_no_harm(pretrained, train_data, val_data):
    before = score(pretrained, val_data)
    torch.manual_seed(0)
    loaded = weights(pretrained)
    pretrained.train(*(part[:320] for part in train_data), num_epochs=np.int64(1))
    assert score(pretrained, val_data) > before - 0.05
    assert not any(
        torch.equal(*both) for both in zip(loaded.values(), weights(pretrained).values(), strict=True)
    )


@pytest.mark.parametrize(("swap", "augment"), [(True, True), (False, True), (True, False)])
def test_pairs_are_swapped_and_turned_alike_as_the_learning_rate_rises_and_falls(swap, augment):
    sources, targets, rates = [], [], []

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            sources.append(x)
            return self.weight * x

    def loss(guess, target):
        targets.append(255 * target)
        return (guess - target).square().mean()

    torch.manual_seed(0)
    picture = torch.arange(16.0).view(1, 1, 4, 4).expand(256, 3, -1, -1)
    training = Training(
        Scale(),
        [(picture, picture + 100)],
        1,
        batch_size=2,
        loss=loss,
        optimizers=lambda network, rate: [torch.optim.SGD(network.parameters(), rate)],
        swap=swap,
        augment=augment,
        mixed_precision=False,
        shares=1,
    )
    for _ in training:
        rates.append(training.optimizers[0].param_groups[0]["lr"])
    source, target = torch.cat(sources), torch.cat(targets)
    torch.testing.assert_close(target, torch.where(source < 50, source + 100, source - 100))
    swapped = (source >= 50).flatten(1).all(1).float().mean().item()
    assert 0.35 < swapped < 0.65 if swap else swapped == 0
    ways = {tuple((each[0].flatten() % 100).tolist()) for each in source}
    assert len(ways) == (8 if augment else 1)
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(2e-3, rel=0.01) and 1 <= top <= 6  # of 128 steps
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01 * rates[top] and rates[64] == pytest.approx(rates[top] / 2, rel=0.1)


@pytest.mark.skipif(Model().device.type != "cpu", reason="bit for bit on a CPU only")
def test_a_training_within_the_callers_autocast_ends_alike(train_data, monkeypatch):
    """Whose cache would give the layers, in bfloat16, the weights of its first step for ever."""
    monkeypatch.setattr(model_module, "bfloat16", lambda device: True)
    few, noisy, ends = [part[:40] for part in train_data], train_data[0][:4], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for enabled in (False, True):
            model = Model()
            model.load_pretrained_model()
            with torch.autocast("cpu", torch.bfloat16, enabled):
                before = model.predict(noisy)
                torch.manual_seed(0)
                model.train(*few, 2)
                assert not torch.equal(model.predict(noisy), before)
            ends.append(weights(model))
    finally:
        torch.set_num_threads(threads)
    assert same_weights(model.network, ends[0])


def test_another_trainings_state_is_refused_and_changes_nothing(train_data):
    few = [tuple(part[:40] for part in train_data)]
    torch.manual_seed(0)
    training, other = (Training(UNet((8, 16)), few, 1) for _ in range(2))
    before = copy.deepcopy(training.network.state_dict())
    state = other.state_dict()
    for change in ({"optimizers": []}, {"step": 99}):
        with pytest.raises(ValueError, match="state: not of such a training"):
            training.load_state_dict(state | change)
        assert same_weights(training.network, before)


def test_threads_that_cannot_start_end_in_an_error_and_not_in_a_wait():
    done = run("-c", NO_THREADS)
    assert done.returncode == 0 and "can't start new thread" in done.stdout, done.stderr


NO_THREADS = """import threading
from Miniproject_1.model import Workers

start, started = threading.Thread.start, []

def limited(thread):
    started.append(thread)
    if len(started) == 2:
        raise RuntimeError("can't start new thread")
    start(thread)

threading.Thread.start = limited
try:
    Workers(2)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(Model().device.type != "cpu", reason="bit for bit on a CPU only")
def test_same_seed_same_weights_whatever_the_dtype_and_gradient_mode(train_data):
    a, b = (part[:100] for part in train_data)
    results = []
    for inputs, mode in (
        ((a, b), torch.enable_grad()),
        ((a.float(), b.double()), torch.no_grad()),
        ((a.to(memory_format=torch.channels_last), b), torch.inference_mode()),
    ):
        kept = [each.clone() for each in inputs]
        with mode:
            torch.manual_seed(3)
            model = Model()
            grad = torch.is_grad_enabled()
            model.train(*inputs, 2)
            assert torch.is_grad_enabled() == grad
        assert all(torch.equal(one, other) for one, other in zip(inputs, kept, strict=True))
        results.append(weights(model))
    assert same_weights(model.network, results[0])
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    torch.manual_seed(4)
    model = Model()
    model.train(a, b, 2)
    assert not same_weights(model.network, results[0])


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.skipif(Model().device.type != "cpu", reason="threads of a CPU")
def test_each_thread_computes_alone_and_the_sum_does_not_depend_on_which_is_first(two_threads, train_data):
    """So that none waits, spinning, for one that another program keeps from its core."""
    few = [part[:80] for part in train_data]
    ends, answers = [], []
    for _ in range(2):
        torch.manual_seed(3)
        model, seen = Model(), []
        model.network.register_forward_hook(
            lambda _, images, answer, seen=seen: seen.append(
                (get_ident(), torch.get_num_threads(), len(images[0]))
            )
        )
        model.train(*few, 2)
        threads, cores, numbers = zip(*seen, strict=True)
        assert set(cores) == {1} and len(set(threads)) == 2 and get_ident() not in threads
        assert sorted(numbers) == [8] * 4 + [16] * 8
        seen.clear()
        answers.append(model.predict(few[0]))
        assert {cores for _, cores, _ in seen} == {1} and len({thread for thread, _, _ in seen}) == 2
        assert torch.get_num_threads() == 2
        ends.append(weights(model))
    assert same_weights(model.network, ends[0])
    assert torch.equal(*answers)


def test_shares_of_a_batch_give_the_gradients_of_the_whole(train_data):
    def sgd(network, rate):
        return [torch.optim.SGD(network.parameters(), rate)]

    ends = []
    for shares in (1, 2, 5):
        torch.manual_seed(0)
        network = UNet((8, 16), blocks=1)
        options = {"shares": shares, "optimizers": sgd, "learning_rate": 0.01, "mixed_precision": False}
        list(Training(network, [tuple(part[:67] for part in train_data)], 1, **options))
        ends.append(network.state_dict())
    assert ends[0]["tail.weight"].abs().max() > 1e-3  # from zero
    for end in ends[1:]:
        for name, value in end.items():
            torch.testing.assert_close(value, ends[0][name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(16, 32, 3), nn.Conv2d(8, 64, 2), EquivariantConv2d(16, 32, 3)], ids=str
)
def test_muon_steps_as_pytorchs_does_on_whole_kernels(layer):
    """As close as bfloat16, in which PyTorch's computes."""

    def whole(weight):
        return (whole_kernel(weight) if isinstance(layer, EquivariantConv2d) else weight).flatten(1).clone()

    layers = [layer, copy.deepcopy(layer)]  # of one shape, and so computed at once
    matrices = [whole(each.weight.detach()) for each in layers]
    own = KernelMuon(layers, 0.01)
    pytorchs, begin = torch.optim.Muon(matrices, 0.01, weight_decay=0), matrices[0].clone()
    for _ in range(3):
        for each, matrix in zip(layers, matrices, strict=True):
            each.weight.grad = torch.randn_like(each.weight)
            matrix.grad = whole(each.weight.grad)
        own.step()
        pytorchs.step()
    for each, matrix in zip(layers, matrices, strict=True):
        assert (whole(each.weight.detach()) - matrix).norm() < 0.02 * (matrix - begin).norm()


def test_noise_beyond_the_range_is_learnt_from_as_it_is(val_data):
    clean = val_data[1][:32].float()
    a, b = (clean + 80 * torch.randn(clean.shape) for _ in "ab")
    ends = []
    for pair in ((a, b), (a.clamp(0, 255), b.clamp(0, 255))):
        torch.manual_seed(0)
        model = Model()
        model.train(*pair, 1)
        ends.append(weights(model))
        output = model.predict(a)
        assert output.min() == 0 and output.max() == 255
    assert any(not torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 5, 3), (70, 3, 17, 33)])
def test_trains_on_any_size(shape):
    a, b = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    model = Model()
    model.train(a, b, 1)
    assert model.predict(a).isfinite().all()


def test_fine_tuning_ends_between_the_weights_before_and_after(train_data):
    few = tuple(part[:96] for part in train_data)
    ends = []
    for kept in (0, 0.25, 1):
        torch.manual_seed(0)
        network = UNet((8, 16))
        before = copy.deepcopy(network.state_dict())
        list(Training(network, [few], 2, kept=kept))
        ends.append(network.state_dict())
    assert same_weights(network, before)
    assert not same_weights(network, ends[0])
    for name, value in ends[1].items():
        torch.testing.assert_close(value, 0.75 * ends[0][name] + 0.25 * before[name])
    model = Model()
    assert model.kept == 0  # a new one has nothing to keep
    model.load_pretrained_model()
    assert 0 < model.kept < 1


@pytest.mark.parametrize("kept", [0, 0.5])
@pytest.mark.parametrize("stop", [1, 5, 7, 8, 11])
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(train_data, tmp_path, stop, kept):
    few = tuple(part[:150] for part in train_data)
    shards = [few, tuple(part[150:200] for part in train_data)]  # batches of 32: 5 and 2 an epoch

    def start(state=None):
        torch.manual_seed(0 if state is None else 1)
        network = UNet((8, 16))
        training = Training(network, shards, 2, kept=kept)
        if state:
            training.load_state_dict(state)
        return network, training

    whole, training = start()
    losses = [loss for _, loss in training if loss is not None]
    interrupted, training = start()
    for done, _ in enumerate(training, 1):
        if done == stop:
            torch.save(training.state_dict(), tmp_path / "state.pth")
            break
    resumed, training = start(torch.load(tmp_path / "state.pth", weights_only=True))
    rest = list(training)
    assert len(rest) == 14 - stop
    assert rest[-1].epoch == 2 and len(losses) == 2
    told = [loss for _, loss in rest if loss is not None]
    assert told == losses[-len(told) :]  # the epoch's mean, also of the steps before the interruption
    assert same_weights(resumed, whole.state_dict())
    assert not same_weights(interrupted, whole.state_dict())


def test_both_layouts_take_the_same_steps(train_data, monkeypatch):
    monkeypatch.setattr(model_module, "bfloat16", lambda device: False)
    few = tuple(part[:256] for part in train_data)
    updates = []
    for channels_last in (True, False):
        torch.manual_seed(0)
        network = UNet((8, 16), blocks=1)
        before = copy.deepcopy(network.state_dict())
        list(Training(network, [few], 1, channels_last=channels_last))
        moved = [value - before[name] for name, value in network.state_dict().items()]
        updates.append(torch.cat([each.flatten() for each in moved]))
    assert torch.cosine_similarity(*updates, dim=0) > 0.99


def test_a_loss_without_bounds_stops_the_training_and_the_last_good_weights_stay(train_data):
    few = tuple(part[:256] for part in train_data)
    network = UNet((8, 16))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(FloatingPointError, match=r"at step \d+, at a learning rate of \d.*e\+"):
        list(Training(network, [few], 1, learning_rate=1e30))
    assert same_weights(network, before)


def test_ctrl_c_leaves_a_model_that_works_with_the_weights_so_far(train_data):
    few = [each[:64] for each in train_data]
    model = Model()
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        model.train(
            *few, epochs=9, after_epoch=lambda epoch, _: epoch == 2 and signal.raise_signal(signal.SIGINT)
        )
    assert not same_weights(model.network, before)
    assert all(each.grad is None for each in model.network.parameters())
    assert model.predict(few[0][:2]).isfinite().all()
    model.train(*few, epochs=1)


def test_ctrl_c_in_the_middle_of_a_step_leaves_no_gradients(train_data):
    few = [each[:256] for each in train_data]
    model = Model()
    steps = iter(range(9))
    model.network.head.weight.register_hook(
        lambda _: (next(steps) == 2 and signal.raise_signal(signal.SIGINT)) or None
    )
    with pytest.raises(KeyboardInterrupt):
        model.train(*few, epochs=1)
    assert all(each.grad is None for each in model.network.parameters())
    assert model.predict(few[0][:2]).isfinite().all()


def test_nothing_bad_is_kept_between_two_checks(train_data):
    network = UNet((8, 16))
    before = copy.deepcopy(network.state_dict())
    training = Training(network, [tuple(each[:256] for each in train_data)], 1, learning_rate=1e30)
    run = iter(training)
    next(run)
    next(run)
    with pytest.raises(FloatingPointError, match="at step"):
        training.state_dict()
    assert same_weights(network, before)
    next(run)
    run.close()
    assert all(each.isfinite().all() for each in network.parameters())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(noisy_a=[1, 2]), TypeError, "noisy_a.*list"),
        (dict(noisy_b=torch.zeros(4, 3, 8, 8, dtype=torch.int64)), TypeError, "noisy_b.*int64"),
        (dict(noisy_a=torch.zeros(3, 8, 8)), ValueError, r"noisy_a.*unsqueeze\(0\)"),
        (dict(noisy_a=torch.zeros(4, 1, 8, 8)), ValueError, "noisy_a.*4, 1, 8, 8"),
        (dict(noisy_a=torch.zeros(5, 3, 8, 8)), ValueError, "same shape"),
        (
            dict(noisy_a=torch.zeros(0, 3, 8, 8), noisy_b=torch.zeros(0, 3, 8, 8)),
            ValueError,
            "one pair",
        ),
        (dict(noisy_a=torch.full((4, 3, 8, 8), torch.nan)), ValueError, "noisy_a.*NaN"),
        (dict(noisy_b=torch.full((4, 3, 8, 8), -torch.inf)), ValueError, "noisy_b.*infinity"),
        (dict(noisy_b=torch.zeros(4, 3, 8, 8, dtype=torch.complex64)), TypeError, "noisy_b.*complex64"),
        (dict(noisy_b=torch.zeros(4, 3, 8, 8, dtype=torch.bool)), TypeError, "noisy_b.*bool"),
        (dict(epochs=0), ValueError, "epochs.*0"),
        (dict(epochs=1.5), ValueError, "epochs.*1.5"),
        (dict(num_epochs=-1), ValueError, "epochs.*-1"),
        (dict(after_epoch=3), TypeError, "after_epoch.*int"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_changes(change, error, words):
    good = dict(noisy_a=torch.zeros(4, 3, 8, 8), noisy_b=torch.zeros(4, 3, 8, 8), epochs=1)
    model = Model()
    before = weights(model)
    with pytest.raises(error, match=words):
        model.train(**(good | change))
    assert same_weights(model.network, before)


def test_values_in_0_1_are_warned_of_once(pretrained):
    x = torch.rand(2, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"noisy_a and noisy_b.*\[0, 255\]") as warned:
        pretrained.train(x, x, 1)
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="^noisy_b: "):
        pretrained.train(255 * x, x + 0.2 * torch.randn(x.shape), 1)
    with pytest.warns(UserWarning, match="x: ") as warned:
        pretrained.predict(x)
    assert warned[0].filename == __file__  # where the mistake is
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pretrained.predict(torch.zeros(1, 3, 8, 8))
        pretrained.train(300 * x - 20, 300 * x - 20, 1)


def test_a_sensors_counts_are_warned_of_or_refused(pretrained):
    counts = torch.rand(2, 3, 8, 8)
    with pytest.warns(UserWarning, match="x: values in .* these are"):
        pretrained.predict(100 + 400 * counts)
    for call in (pretrained.predict, lambda x: pretrained.train(x, x, 1)):
        with pytest.raises(ValueError, match=r"expected values in \[0, 255\], got"):
            call(100 + 65_000 * counts)


def test_without_mixed_precision_the_answer_is_float32s(pretrained, val_data):
    x = val_data[0][:8]
    pretrained.mixed_precision = False
    with torch.no_grad():
        exact = pretrained.network(x.float()).clamp(0, 255)
    assert (pretrained.predict(x) - exact).abs().max() < 1e-3


# ------------------------------------------------------------------------------------------------
# Prediction


@pytest.mark.parametrize("shape", [(300, 3, 32, 32), (1, 3, 40, 1200), (1, 3, 700, 900)])
def test_memory_is_bounded_however_many_or_large_the_pictures(shape):
    model, seen = Model(), []
    model.network = UNet((8, 16)).to(model.device)
    model.network.register_forward_hook(lambda _, given, __: seen.append(given[0][:, 0].numel()))
    model.predict(torch.randint(0, 256, shape, dtype=torch.uint8))
    assert max(seen) < 560**2 and sum(seen) >= shape[0] * shape[2] * shape[3]


@pytest.mark.parametrize(
    "shape", [(0, 3, 32, 32), (1, 3, 1, 1), (2, 3, 1, 9), (5, 3, 33, 31), (1, 3, 130, 300)]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_output_has_the_inputs_shape_and_the_right_range(pretrained, shape, dtype):
    x = torch.randint(0, 256, shape).to(dtype)
    kept = x.clone()
    output = pretrained.predict(x)
    assert output.shape == x.shape
    assert output.dtype == torch.float32
    assert output.device == x.device
    assert not output.requires_grad
    assert ((output >= 0) & (output <= 255)).all()
    assert torch.equal(x, kept)
    if x.numel():
        output.zero_()
        assert torch.equal(x, kept), "the output is a view of the input"


@pytest.mark.parametrize("width", [32, 64])
def test_a_turned_picture_gives_the_turned_answer(photo_model, val_data, width, monkeypatch):
    monkeypatch.setattr(model_module, "bfloat16", lambda device: False)  # whose rounding is coarser than this
    torch.manual_seed(0)
    model = Model()
    model.network = UNet((8, 16, 24), blocks=2).to(model.device)
    for parameter in model.network.parameters():  # the biases too, which start at zero
        torch.nn.init.normal_(parameter, std=0.05)
    noisy = val_data[0][:4].repeat(1, 1, 1, width // 32)
    for each in (model, photo_model):
        answer = each.predict(noisy)
        assert (answer - noisy).abs().max() > 10
        for way in range(8):
            turned = dihedral(each.predict(dihedral(noisy, way)), BACK[way])
            assert (turned - answer).abs().max() < 10 * GREY_LEVEL, way


@pytest.mark.parametrize("width", [1, 2])
def test_a_thin_picture_gets_the_same_answer_upright_lying_and_in_float32(
    pretrained, val_data, width, monkeypatch
):
    tall = torch.cat(val_data[0][:4].split(1), 2)[..., :width]
    answer = pretrained.predict(tall)
    assert (answer - tall).abs().max() > 10
    assert torch.equal(answer, pretrained.predict(tall.mT).mT)
    monkeypatch.setattr(model_module, "bfloat16", lambda device: False)
    assert (answer - pretrained.predict(tall)).abs().max() < 4


def test_a_network_that_no_eight_share_is_refused():
    with pytest.raises(ValueError, match=r"widths: .*\(48, 90\)"):
        UNet((48, 90))


def test_the_edge_is_denoised_as_well_where_the_picture_is_padded():
    parts = [getattr(skimage.data, name)()[100:200, 100:260] for name in ("astronaut", "chelsea", "coffee")]
    clean = torch.stack([torch.from_numpy(part.copy()).permute(2, 0, 1) for part in parts]).float()
    model, errors = Model(), []
    model.load(PHOTOGRAPHS)
    for height in (96, 97):  # a multiple of the stride, and one more
        torch.manual_seed(0)
        shots = [clean + 50 * torch.randn(clean.shape) for _ in range(3)]
        edges = torch.stack([model.predict(shot[:, :, :height])[:, :, -1] for shot in shots])
        errors.append((edges - clean[:, :, height - 1]).square().mean().sqrt())
    assert errors[1] < 1.25 * errors[0]


def test_batching_changes_nothing(pretrained, val_data):
    noisy = val_data[0][:16]
    together = pretrained.predict(noisy.repeat(5, 1, 1, 1))[: len(noisy)]
    alone = torch.cat([pretrained.predict(image) for image in noisy.split(1)])
    assert (together - alone).abs().max() < GREY_LEVEL


@pytest.mark.parametrize("size", [(150, 213), (128, 64), (97, 31)])
def test_tiling_changes_nothing(monkeypatch, size):
    torch.manual_seed(0)
    model = Model()
    model.network = UNet((8, 16), blocks=10).to(model.device)  # of more reach than the shipped one's
    torch.nn.init.normal_(model.network.tail.weight, std=0.05)
    x = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    whole = model.predict(x)
    assert (whole - x).abs().max() > 10
    monkeypatch.setattr(model_module, "TILE", 32)
    assert (model.predict(x) - whole).abs().max() < GREY_LEVEL


@pytest.mark.parametrize("low_precision", [True, False])
def test_callers_autocast_and_layout_change_nothing(pretrained, val_data, monkeypatch, low_precision):
    if not low_precision:
        monkeypatch.setattr(model_module, "bfloat16", lambda device: False)
    noisy = val_data[0][:8]
    plain = pretrained.predict(noisy)
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled):
            assert torch.equal(pretrained.predict(noisy), plain)
    strided = noisy.repeat_interleave(2, dim=3)[..., ::2]
    assert (pretrained.predict(strided) - plain).abs().max() < GREY_LEVEL


def test_bfloat16_costs_nothing(pretrained, val_data, monkeypatch):
    scores = [score(pretrained, val_data)]
    monkeypatch.setattr(model_module, "bfloat16", lambda device: False)
    scores.append(score(pretrained, val_data))
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        ("picture.png", TypeError, "x: .*str"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), TypeError, "x: .*bool"),
        (torch.zeros(1, 3, 8, 8).to(torch.float8_e5m2), TypeError, "x: .*float8"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), TypeError, "x: .*sparse"),
        (torch.nested.nested_tensor([torch.zeros(3, 8, 8)]), TypeError, "x: .*nested"),
        (torch.zeros(1, 3, 8, 8, device="meta"), TypeError, "x: .*meta"),
        (torch.full((1, 3, 8, 8), 1e39, dtype=torch.float64), ValueError, r"x: .*1e\+39"),
        (torch.zeros(3, 8, 8), ValueError, r"x\.unsqueeze\(0\)"),
        (torch.zeros(1, 4, 8, 8), ValueError, "1, 4, 8, 8"),
        (torch.zeros(1, 3, 0, 8), ValueError, "1, 3, 0, 8"),
    ],
)
def test_predict_refuses_what_is_not_a_batch_of_pictures(pretrained, x, error, words):
    with pytest.raises(error, match=words):
        pretrained.predict(x)


# ------------------------------------------------------------------------------------------------
# A GPU, where there is one

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@cuda
def test_cuda_agrees_with_the_cpu(pretrained, val_data):
    noisy = val_data[0]
    on_gpu = pretrained.predict(noisy)
    assert on_gpu.device.type == "cpu"
    assert pretrained.predict(noisy.cuda()).device.type == "cuda"
    pretrained.device = torch.device("cpu")
    pretrained.network.cpu()
    assert (pretrained.predict(noisy) - on_gpu).abs().max() < 0.1


@cuda
def test_cuda_keeps_the_callers_precision_and_its_own(pretrained, val_data):
    noisy, convolutions = val_data[0][:8], torch.backends.cudnn.conv
    plain, before = pretrained.predict(noisy), convolutions.fp32_precision
    alone = torch.cat([pretrained.predict(image) for image in noisy.split(1)])
    assert (alone - plain).abs().max() < GREY_LEVEL
    convolutions.fp32_precision = "tf32"
    try:
        assert torch.equal(pretrained.predict(noisy), plain)
        assert convolutions.fp32_precision == "tf32"
    finally:
        convolutions.fp32_precision = before


@cuda
def test_cuda_learns(train_data, val_data):
    torch.manual_seed(0)
    model = Model()
    assert model.device.type == "cuda"
    before = score(model, val_data)
    model.train(*train_data, 3)
    assert score(model, val_data) > before + 2
