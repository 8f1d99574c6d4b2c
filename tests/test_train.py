"""Long training through the command line: stopped, killed, gone on with, shared out."""

import copy
import os
import random
import resource
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from conftest import run, start, stop_after_an_epoch

import Miniproject_1.others.train as train_module
from Miniproject_1 import Model
from Miniproject_1.model import Training
from Miniproject_1.others.course import load_images
from Miniproject_1.others.metrics import psnr
from Miniproject_1.others.sources import Shards
from Miniproject_1.others.study.bench import TRAIN, peak_gib


@pytest.fixture(scope="module")
def shards(train_data, tmp_path_factory):
    """A folder of two files of 96 and 64 pairs: five steps an epoch."""
    folder = tmp_path_factory.mktemp("shards")
    for name, part in (("train_data_1", slice(96)), ("train_data_2", slice(96, 160))):
        torch.save(tuple(each[part].clone() for each in train_data), folder / f"{name}.pkl")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(shards, tmp_path_factory):
    """What a training of four epochs that nothing disturbs ends with."""
    out = tmp_path_factory.mktemp("uninterrupted") / "model.pth"
    done = run(*command(shards, out))
    assert done.returncode == 0, done.stderr
    return contents(out)


def command(shards, out, *more, device="cpu"):  # on which it ends bit for bit alike
    return ("-m", "Miniproject_1", "train", shards, "--out", out, "--epochs", 4, "--device", device, *more)


def contents(path):
    """What a model's file holds, read through the public door."""
    return Model().load(path)


def same(one, other):
    return one["weights"].keys() == other["weights"].keys() and all(
        torch.equal(value, other["weights"][name]) for name, value in one["weights"].items()
    )


def test_every_epoch_is_told_and_the_file_is_a_model(uninterrupted, shards):
    assert "training" not in uninterrupted
    assert uninterrupted["recipe"]["pairs"] == 159  # one of the last file's 64 is kept back
    assert [each["epoch"] for each in uninterrupted["record"]] == [1, 2, 3, 4]
    for each in uninterrupted["record"]:
        assert each["clean, estimated"] > each["noise to noise"] > 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_goes_on_to_the_same_end(shards, uninterrupted, tmp_path, number):
    out = tmp_path / "model.pth"
    process = start(*command(shards, out))
    errors = stop_after_an_epoch(process, number)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert 5 <= contents(out)["training"]["step"] < 20
    done = run(*command(shards, out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert same(contents(out), uninterrupted)
    assert contents(out)["record"] == uninterrupted["record"]


@pytest.fixture(scope="module")
def interrupted(shards, tmp_path_factory):
    """The file of a training that was stopped after an epoch."""
    out = tmp_path_factory.mktemp("interrupted") / "model.pth"
    stop_after_an_epoch(start(*command(shards, out)))
    return out


@pytest.mark.parametrize(
    "change",
    [
        {"training": 5},
        {"training": {}},
        {"record": 7},
        {"record": [{"epoch": 1, "loss": "low"}]},
        {"recipe": torch.zeros(2)},
        {"step": "x"},
        {"step": 10**6},
        {"step": -4},
        {"optimizers": []},
        {"optimizers": [{}, {}]},
        {"network": {}},
        {"network": {"head.weight": torch.nan}},
    ],
    ids=str,
)
def test_a_state_that_is_no_such_trainings_is_refused(shards, interrupted, tmp_path, change):
    content = torch.load(interrupted, weights_only=True)
    (key, value), state = *change.items(), content["training"]
    if key == "network" and value:
        value = {name: each * torch.nan for name, each in state["network"].items()}
    if key in state:
        content["training"] = state | {key: value}
    else:
        content[key] = value
    out = tmp_path / "model.pth"
    torch.save(content, out)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"model\.pth"):
        train_module.train([shards], out, epochs=4, seed=0, resume=True, device="cpu")
    assert out.read_bytes() == before


def test_a_kill_in_the_middle_of_a_save_leaves_the_last_file(shards, uninterrupted, tmp_path):
    out = tmp_path / "model.pth"
    script = tmp_path / "script.py"
    script.write_text(
        "import io, os, signal, sys\n"
        "import torch\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from Miniproject_1.__main__ import main\n"
        "save, calls = torch.save, []\n"
        "def save_half(content, file):\n"
        "    calls.append(content)\n"
        "    if len(calls) < 3: return save(content, file)\n"
        "    save(content, whole := io.BytesIO())\n"
        "    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.save = save_half\n"
        "main()\n"
    )
    there = {"model.pth", "model.png", "script.py"}
    done = run(script, *command(shards, out)[2:])
    assert done.returncode == -signal.SIGKILL
    assert contents(out)["training"]["step"] == 10
    assert set(os.listdir(tmp_path)) > there  # half of a file, beside it
    done = run(*command(shards, out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert same(contents(out), uninterrupted)
    assert set(os.listdir(tmp_path)) == there


def test_kill_at_ten_random_moments_loses_an_epoch_at_most(shards, uninterrupted, tmp_path):
    out, rng = tmp_path / "model.pth", random.Random(0)
    for _ in range(10):
        process = start(*command(shards, out, "--resume"))
        told = process.stdout.readline()  # the machine: from here on it trains
        if rng.random() < 0.5:
            told += process.stdout.readline()
        time.sleep(rng.random())
        process.send_signal(signal.SIGKILL)
        told += process.communicate(timeout=120)[0]
        epochs = [int(line.split()[1].partition("/")[0]) for line in told.splitlines() if "loss" in line]
        if epochs:
            file = contents(out)  # whole, whatever the moment
            assert "training" not in file or file["training"]["step"] >= 5 * epochs[-1]
        if out.exists() and "training" not in contents(out):
            out.unlink()  # this one was done: the next starts anew
            out.with_suffix(".png").unlink()
    done = run(*command(shards, out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert same(contents(out), uninterrupted)


def test_what_is_there_is_neither_overwritten_nor_mixed_up(shards, uninterrupted, tmp_path):
    out = tmp_path / "model.pth"
    stop_after_an_epoch(start(*command(shards, out)))
    before = out.read_bytes()
    others = tmp_path / "others"  # as many pairs, but other ones
    others.mkdir()
    for path in shards.iterdir():
        pairs = load_images(path)
        torch.save(tuple(torch.cat([each[:1], each[1:].flip(0)]) for each in pairs), others / path.name)
    (tmp_path / "picture.png").write_bytes(b"no curve")
    done = run(*command(shards, out))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "model.pth is there already" in done.stderr
    for data, file, more, words in (
        ([shards], out, {"resume": True, "seed": 5}, "cannot go on"),
        ([others], out, {"resume": True}, "cannot go on"),
        ([shards], tmp_path / "picture.pth", {}, "picture.png is there already"),
        ([shards], out / "below.pth", {}, "model.pth"),
        ([shards, others], others / "new.pth", {}, "name another place"),
    ):
        with pytest.raises((OSError, ValueError), match=words):
            train_module.train(data, file, **({"epochs": 4, "seed": 0} | more))
        assert out.read_bytes() == before
    assert (tmp_path / "picture.png").read_bytes() == b"no curve"
    assert not (others / "new.pth").exists()


def test_beside_clean_pictures_every_pair_is_trained_on_and_they_score(
    shards, val_data, tmp_path, monkeypatch
):
    torch.save(load_images(shards / "train_data_1.pkl"), tmp_path / "train_data.pkl")
    torch.save(tuple(each[:4] for each in val_data), tmp_path / "val_data.pkl")
    steps = []

    class Counted(Training):
        def __iter__(self):
            for progress in super().__iter__():
                steps.append(progress.loss)
                yield progress

    monkeypatch.setattr(train_module, "Training", Counted)
    out = tmp_path / "model.pth"
    train_module.train([tmp_path], out, epochs=1, seed=0, batch_size=40)
    content = contents(out)
    assert content["recipe"]["pairs"] == 96 and len(steps) == 3
    (record,) = content["record"]
    noisy, clean = (each[:4] for each in val_data)
    model = Model()
    model.load(out)
    assert record["PSNR"] == pytest.approx(psnr(model.predict(noisy), clean).mean().item(), abs=1e-4)


def test_a_loss_without_bounds_ends_it_with_one_line(shards, tmp_path):
    done = run(*command(shards, tmp_path / "model.pth", "--learning-rate", 1e30))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "at step" in last and "learning rate" in last and "model.pth is not written" in last
    assert not (tmp_path / "model.pth").exists()


def test_a_training_that_is_done_says_so_and_names_the_remedy(shards, tmp_path, run_here):
    out = tmp_path / "model.pth"
    options = ("train", shards / "train_data_2.pkl", "-o", out, "--resume", "--epochs")
    assert run_here(*options, 1)[0] == 0
    before = out.read_bytes()
    code, told = run_here(*options, 1)
    assert code == 0 and f"{out}: this training is done; --start {out}" in told.out and not told.err
    code, told = run_here(*options, 8)
    assert code == 1 and f"epochs 1 and not 8; done, --start {out} and another FILE" in told.err
    Model().save(tmp_path / "weights.pth")  # of no training
    code, told = run_here("train", shards, "-o", tmp_path / "weights.pth", "--resume")
    assert code == 1 and "holds no training" in told.err and "--start" in told.err
    assert out.read_bytes() == before
    remedy = ("train", shards / "train_data_2.pkl", "-o", tmp_path / "new.pth", "--start", out, "--epochs", 1)
    assert run_here(*remedy)[0] == 0


def limit_files():
    """Like a full disk: no file of this process may grow beyond 64 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))


def test_a_full_disk_is_told_and_the_last_good_file_stays(shards, uninterrupted, tmp_path):
    out = tmp_path / "model.pth"
    stop_after_an_epoch(start(*command(shards, out)))
    before, there = out.read_bytes(), sorted(os.listdir(tmp_path))
    full = start("-B", *command(shards, out, "--resume"), preexec_fn=limit_files)
    _, errors = full.communicate(timeout=120)
    assert full.returncode == 1
    assert "Traceback" not in errors
    assert "File too large" in errors.splitlines()[-1] and "model.pth" in errors.splitlines()[-1]
    assert out.read_bytes() == before and sorted(os.listdir(tmp_path)) == there
    done = run(*command(shards, out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert same(contents(out), uninterrupted)


def test_a_loss_without_bounds_later_on_leaves_the_last_epochs_file(shards, tmp_path, monkeypatch):
    out = tmp_path / "model.pth"
    kept = []

    class Diverging(Training):
        def __iter__(self):
            for progress in super().__iter__():
                if progress.epoch == 2:
                    kept.append(out.read_bytes())
                    raise FloatingPointError("the loss became NaN")
                yield progress

    monkeypatch.setattr(train_module, "Training", Diverging)
    with pytest.raises(FloatingPointError, match=r"NaN; .*model\.pth has what it had after its last epoch"):
        train_module.train([shards], out, epochs=4, seed=0)
    assert [out.read_bytes()] == kept
    assert len(contents(out)["record"]) == 1


def test_files_from_before_torch_1_6_are_read_too(shards, tmp_path):
    pair = load_images(shards / "train_data_1.pkl")
    torch.save(pair, tmp_path / "train_data.pkl", _use_new_zipfile_serialization=False)
    (noisy_a, _), *_ = Shards(tmp_path / "train_data.pkl")
    assert torch.equal(noisy_a, pair[0][: len(noisy_a)])


def test_one_file_given_weights_and_an_early_stop(shards, tmp_path):
    given = Model()
    given.save(tmp_path / "given.pth")
    out = tmp_path / "model.pth"
    options = ("--start", tmp_path / "given.pth", "--patience", 1, "--learning-rate", 1e-12, "--epochs", 9)
    done = run("-m", "Miniproject_1", "train", shards / "train_data_1.pkl", "-o", out, *options)
    assert done.returncode == 0, done.stderr
    assert "the weights are those of epoch 1" in done.stdout
    content = contents(out)
    assert len(content["record"]) == 2  # at such a rate nothing gets better
    assert content["recipe"]["start"] == "given.pth" and content["recipe"]["pairs"] == 95
    for name, value in given.network.state_dict().items():
        torch.testing.assert_close(content["weights"][name], value, atol=1e-6, rtol=0)


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    pair = tuple(torch.randint(0, 256, (2_000, 3, 32, 32), dtype=torch.uint8) for _ in "ab")
    size = sum(each.nbytes for each in pair) / 2**30
    peaks = []
    for number in range(4):
        torch.save(pair, tmp_path / f"train_data_{number}.pkl")
        if number in (0, 3):
            peaks.append(peak_gib(TRAIN.format(folder=tmp_path)))
    assert peaks[1] < peaks[0] + 1.5 * size  # three more files
    shard = Shards(tmp_path)[0]
    assert len(shard[0]) == 2_000
    assert str(tmp_path / "train_data_0.pkl") in Path("/proc/self/maps").read_text()  # not read: mapped


def test_training_stops_early_with_the_best_weights(shards, tmp_path, monkeypatch):
    scripted, seen = iter([20.0, 22.0, 21.0, 22.0, 99.0]), []

    def scores(denoise, pairs):
        seen.append(copy.deepcopy(denoise.__self__.network.state_dict()))
        return next(scripted), 30.0

    monkeypatch.setattr(train_module, "noise_to_noise", scores)
    out = tmp_path / "model.pth"
    train_module.train([shards], out, epochs=9, seed=0, patience=2)
    content = contents(out)
    assert [each["noise to noise"] for each in content["record"]] == [20, 22, 21, 22]
    assert "training" not in content and "best" not in content
    assert same(content, {"weights": seen[1]}) and not same(content, {"weights": seen[3]})


def on_two_machines(*arguments):
    """Two torchruns that find each other by an address, as on two machines, a process each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    torchrun = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d")
    both = [start(*torchrun, f"--rdzv-endpoint={address}", *arguments) for _ in "ab"]
    told = [each.communicate(timeout=300) for each in both]
    assert all(each.returncode == 0 for each in both), told
    return "".join(out for out, _ in told)


def test_processes_that_see_other_data_are_told_so(shards, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from Miniproject_1.__main__ import main\n"
        "sys.argv[2] += f'/train_data_{1 + int(os.environ[\"RANK\"])}.pkl'\n"
        "sys.exit(main())\n"
    )
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = run(*torchrun, script, *command(shards, tmp_path / "model.pth")[2:])
    assert done.returncode != 0 and "do not see the same data" in done.stderr
    assert not (tmp_path / "model.pth").exists()


def test_an_early_stop_remembers_the_best_weights_over_an_interruption(shards, tmp_path, monkeypatch):
    seen = []

    def scripted(*scores, then=lambda: None):
        left = list(scores)

        def score(denoise, pairs):
            seen.append(copy.deepcopy(denoise.__self__.network.state_dict()))
            if len(left) == 1:
                then()
            return left.pop(0), 30.0

        monkeypatch.setattr(train_module, "noise_to_noise", score)

    out = tmp_path / "model.pth"
    options = {"epochs": 9, "seed": 0, "patience": 2}
    scripted(20.0, 22.0, 21.0, then=lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train_module.train([shards], out, **options)
    scripted(21.5, 99.0)
    train_module.train([shards], out, **options, resume=True)
    assert [each["noise to noise"] for each in contents(out)["record"]] == [20, 22, 21, 21.5]
    assert same(contents(out), {"weights": seen[1]})


def test_two_processes_end_where_one_does(shards, uninterrupted, tmp_path):
    out = tmp_path / "model.pth"
    script = tmp_path / "script.py"  # a thread of the process group that outlives it can abort the process
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from Miniproject_1.__main__ import main\n"
        "assert main() == 0\n"
        "threads = [each.read_text() for each in Path('/proc/self/task').glob('*/comm')]\n"
        "assert threads and 'gloo' not in ''.join(threads), threads\n"
    )
    told = on_two_machines(script, *command(shards, out)[2:])
    assert told.count("epoch   4/4") == 1
    assert_close(out, uninterrupted, shards)


def assert_close(out, uninterrupted, shards):
    """bfloat16's rounding is what differs, and Muon passes every bit of it on: the next test is exact."""
    noisy, _ = load_images(shards / "train_data_2.pkl")
    two, one = Model(), Model()
    two.load(out)
    one.network.load_state_dict(uninterrupted["weights"])
    changed = (one.predict(noisy) - noisy).square().mean().sqrt()
    assert (two.predict(noisy) - one.predict(noisy)).square().mean().sqrt() < 0.05 * changed


def test_two_processes_take_the_steps_of_one(train_data, tmp_path):
    """In float32 and by plain gradient descent, nothing but the order of summation is left to differ."""
    # Two pairs are kept back, and the last batch is of one: nothing is left of it for the second process.
    shards, out = tmp_path / "train_data.pkl", tmp_path / "weights.pth"
    torch.save(tuple(each[: 2 * 64 + 3].clone() for each in train_data), shards)
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from Miniproject_1.model import Training, UNet\n"
        "from Miniproject_1.others.sources import Shards\n"
        "from Miniproject_1.others.train import _processes\n"
        "def sgd(network, rate): return [torch.optim.SGD(network.parameters(), rate)]\n"
        "with _processes('cpu') as rank:\n"
        "    torch.manual_seed(rank)\n"  # and still they shuffle and turn alike
        "    network = UNet((8, 16), blocks=1)\n"
        "    options = {'optimizers': sgd, 'learning_rate': 0.01}\n"
        "    options |= {'mixed_precision': False, 'channels_last': False}\n"
        "    for _ in Training(network, Shards(Path(sys.argv[1])), 2, **options): pass\n"
        "    if rank == 0: torch.save(network.state_dict(), sys.argv[2])\n"
    )
    done = run(script, shards, out)
    assert done.returncode == 0, done.stderr
    one = torch.load(out, weights_only=True)
    assert one["tail.weight"].abs().max() > 1e-3  # from zero
    on_two_machines(script, shards, out)
    for name, value in torch.load(out, weights_only=True).items():
        torch.testing.assert_close(value, one[name], atol=1e-6, rtol=1e-4)


def test_a_worker_that_dies_ends_the_run_and_the_rest_is_gone_on_with(shards, uninterrupted, tmp_path):
    out = tmp_path / "model.pth"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(*torchrun, *command(shards, out))
    next(line for line in process.stdout if line.startswith("epoch"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and "SIGKILL" in errors
    assert contents(out)["training"]["step"] >= 5
    # torchrun hands SIGTERM on, and both stop at the same step.
    errors = stop_after_an_epoch(start(*torchrun, *command(shards, out, "--resume")))
    assert errors.count("Miniproject_1: interrupted") == 2
    assert contents(out)["training"]["step"] >= 10
    done = run(*torchrun, *command(shards, out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert "training" not in contents(out)
    assert_close(out, uninterrupted, shards)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_torchrun_trains_on_every_gpu_there_is(shards, tmp_path):
    out = tmp_path / "model.pth"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=gpu")
    done = run(*torchrun, *command(shards, out, device="cuda"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   4/4") == 1 and "training" not in contents(out)
