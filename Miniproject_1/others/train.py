"""Long training: stopped, killed and gone on with; from more files than memory holds; on many devices."""

import gc
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..model import BATCH_SIZE, Model, Training, atomic_write, psnr_loss, remove_strays
from .console import stop_signals
from .course import load_images
from .machine import PHOTOGRAPHS, describe_machine, new_model, refuse_unwritable
from .metrics import doubts, noise_to_noise, psnr
from .photographs import find_photographs, tell_skipped
from .simulated import SimulatedShots
from .sources import Scenes, Shards

PICTURES_LEARNING_RATE = 5e-4  # from other weights on own pictures: there are few, and so few steps ...
PICTURES_KEPT = 0.25  # ... and less of those weights stays: the noise may be quite another
ASK_EVERY = 10  # steps between two looks at whether any process was asked to stop


def train(
    data: list[Path],
    out: Path,
    *,
    epochs: int,
    seed: int,
    batch_size: int = BATCH_SIZE,
    learning_rate: float | None = None,
    swap: bool = True,
    start: Path | None = None,
    patience: int | None = None,
    resume: bool = False,
    simulate: bool = False,
    floor: float | None = None,
    device: str | None = None,
) -> None:
    """Train on noisy pairs and write the model to `out`, as `Model.save` does, and the curve beside it.

    data: one path as `Shards` takes it, or folders of pictures as `Scenes` does; with `simulate` a folder of
        photographs, for `SimulatedShots`.
    batch_size: pairs a step, over all processes.
    learning_rate: by default `Model`'s, from scratch or for fine-tuning; on own pictures more than that. In
        fine-tuning, without a rate that is given, a training that takes its last step ends with a share of
        the weights that it started from.
    swap: let the two pictures of a pair change places; not where only the second one's noise has zero mean.
    floor: of the PSNR loss, by default its own.
    start: weights to start from, as `Model.load` takes them; the name `none` for a new network. By default
        `photographs.pth` for folders of pictures, else a new network.
    patience: stop early, after so many epochs without a better score; the model is then the best epoch's.
    resume: go on with `out`, which another call with the same arguments has left there; where that was done,
        this is printed and nothing is done.

    Without any clean picture, each epoch is scored on pairs that are kept back, as `noise_to_noise` says, or
    without `swap` by the PSNR of answers against the second pictures alone; where `data` is a folder that
    holds `val_data.pkl`, on that instead.

    `out` is written at each epoch's end, and when SIGINT or SIGTERM stops the training, which then ends
    with `KeyboardInterrupt`; until the training is done it also holds what it takes to go on, and the
    end is the same, bit for bit on a CPU, as if nothing had happened. Under `torchrun`, every process
    takes its share of each batch and the first one writes.
    Raises `FileExistsError` where `out` is there and `resume` is not asked for, and `ValueError` where
    `out` is another training's, `patience` has no score to go by or `floor` is not above 0.
    """
    if floor is not None and not floor > 0:
        raise ValueError(f"--floor {floor:g}: expected a number above 0")
    with _processes(device) as rank:
        torch.manual_seed(seed)
        model = new_model(device)
        pictures = bool(_folders_of_pictures(data)) and not simulate
        start = PHOTOGRAPHS if pictures and not start else None if start == Path("none") else start
        if start:
            model.load(start)
        if learning_rate is not None:
            kept = 0.0
        elif start and pictures:
            learning_rate, kept = PICTURES_LEARNING_RATE, PICTURES_KEPT
        else:
            learning_rate, kept = model.learning_rate, model.kept
        _refuse_taken(data, out, out.with_suffix(".png"), resume)
        val_data, shards = _read(data, seed, rank, simulate)
        one_way, swap = not swap, swap and shards.swap
        if patience is not None and (patience < 1 or not (val_data or shards.held_out)):
            raise ValueError(f"--patience {patience}: expected 1 or more, and pairs enough to keep some back")
        recipe: dict[str, Any] = {"pairs": shards.pairs, "epochs": epochs, "seed": seed}
        recipe |= {"data": _fingerprint(shards.held_out if simulate else shards), "batch_size": batch_size}
        recipe |= {"learning_rate": learning_rate}
        unusual = {  # what is not said is as usual
            "swap": None if swap else False,
            "floor": floor,
            "kept": kept or None,
            "start": start and start.name,
            "patience": patience,
        }
        recipe |= {name: value for name, value in unusual.items() if value is not None}
        saved = _saved(model, out, recipe) if out.exists() else {}
        state, done = saved.get("training"), bool(saved) and "training" not in saved
        _refuse_disagreement(recipe, done, state and state["step"])
        if done:
            print(f"{out}: this training is done; {_train_on(out)}")
            return
        if rank == 0:
            remove_strays(out)
            print(f"{describe_machine(model.device)}; {recipe}", flush=True)
        options: dict[str, Any] = {"batch_size": batch_size, "learning_rate": learning_rate}
        options |= {"swap": swap, "kept": kept}
        options |= {"loss": partial(psnr_loss, floor=floor)} if floor is not None else {}
        with stop_signals() as stopped, _errors_naming(out, bool(state)):
            training = Training(model.network, shards, epochs, **options)
            if state:
                training.load_state_dict(state)
            keeper = Keeper(model, training, out, recipe, saved.get("record", []), saved.get("best"))
            score = partial(_scores, model, val_data, shards.held_out, one_way) if rank == 0 else dict
            if start and pictures and not state:
                keeper.begin_at(score())
            _follow(training, keeper, score, stopped)


def _follow(training: Training, keeper: "Keeper", score: Callable[[], dict], stopped: list[int]) -> None:
    """Take all steps that are left. Raises `KeyboardInterrupt`, once all is kept, when there is a signal."""
    shards = training.shards if isinstance(training.shards, SimulatedShots) else None
    if shards:
        shards.epoch = training.step // training.steps_an_epoch
    for number, (epoch, loss) in enumerate(training):
        if loss is not None and keeper.end_epoch(epoch, loss, score()):
            break
        if loss is not None and shards:
            shards.epoch = epoch
        # Between processes, asking costs a message.
        asked = not dist.is_initialized() or number % ASK_EVERY == 0 or loss is not None
        if asked and _any(bool(stopped)):
            keeper.save()
            raise KeyboardInterrupt(f"--resume goes on with {keeper.out}")


class Keeper:
    """Keeps what a training has come to: in its file, in its curve and on the screen.

    Only the first process writes and prints. record: of each epoch, the number, the loss and the scores;
    best: the weights of the best epoch, where the training may stop early.
    """

    def __init__(
        self,
        model: Model,
        training: Training,
        out: Path,
        recipe: dict[str, Any],
        record: list[dict[str, float]],
        best: dict[str, Tensor] | None,
    ) -> None:
        self.model, self.training, self.out, self.recipe = model, training, out, recipe
        self.record, self.best, self.begin = record, best, time.perf_counter()

    def begin_at(self, scores: dict[str, float]) -> None:
        """Keep the weights that the training starts from: it may end with nothing better."""
        if scores:
            self.record.append({"epoch": 0, "loss": math.inf, **scores})
            self.best = deepcopy(self.model.network.state_dict())
            print(f"before training{_listed(scores)}", flush=True)

    def end_epoch(self, epoch: int, loss: float, scores: dict[str, float]) -> bool:
        """Keep the epoch; whether the training is done: at its last epoch, or `patience` after its best."""
        patience, late = self.recipe.get("patience"), False
        if self.training.rank == 0:
            self.record.append({"epoch": epoch, "loss": loss, **scores})
            if patience is not None:
                if _best_epoch(self.record) == epoch:
                    self.best = deepcopy(self.model.network.state_dict())
                late = epoch - _best_epoch(self.record) >= patience
        done = epoch == self.training.epochs or _any(late)
        if done and self.best and patience is None and _best_epoch([self.record[0], self.record[-1]]) > 0:
            self.best = None  # the last epoch is better than what it started from
        self.save(done)
        if self.training.rank == 0:
            seconds = time.perf_counter() - self.begin
            epochs = f"epoch {epoch:3d}/{self.training.epochs}"
            print(f"{epochs}  loss {loss:.5f}{_listed(scores)}  {seconds:6.0f} s", flush=True)
            draw(self.record, self.out.with_suffix(".png"))
            if done and self.best:
                best = _best_epoch(self.record) if patience is not None else 0
                print("the weights are those", f"of epoch {best}" if best else f"of {self.recipe['start']}")
        return done

    def save(self, done: bool = False) -> None:
        """Write the model: until the training is done with all that it takes to go on, then the best one."""
        if self.training.rank == 0:
            if done and self.best:
                self.model.network.load_state_dict(self.best)
            more = {} if done else {"training": self.training.state_dict(), "best": self.best}
            self.model.save(self.out, recipe=self.recipe, record=self.record, **more)


def _listed(scores: dict[str, float]) -> str:
    return "".join(f"  {name} {score:.3f} dB" for name, score in scores.items())


def _read(
    data: list[Path], seed: int, rank: int, simulate: bool
) -> tuple[tuple[Tensor, Tensor] | None, Shards | Scenes | SimulatedShots]:
    """(the pictures of a `val_data.pkl`, if there is one, or what stands for it; what is trained on)."""
    if simulate:
        if len(data) > 1:
            raise ValueError(f"DATA: --simulate takes one folder of photographs, got {len(data)}")
        shots = SimulatedShots(find_photographs(data[0]), seed)
        return shots.held_out[0], shots
    if folders := _folders_of_pictures(data):
        return None, _scenes(folders, seed, rank)
    val = data[0] / "val_data.pkl"
    val_data = load_images(val) if val.exists() else None
    return val_data, Shards(data[0], keep_back=not val_data)


def _folders_of_pictures(data: list[Path]) -> list[Path]:
    """`data`, unless it is a file of pairs or a folder of such."""
    pairs = len(data) == 1 and (not data[0].is_dir() or any(data[0].glob("train_data*.pkl")))
    return [] if pairs else data


def _refuse_taken(data: list[Path], out: Path, curve: Path, resume: bool) -> None:
    """Raise where what is to be written would take the place of something else, or cannot be written."""
    if inside := next((each for each in _folders_of_pictures(data) if _is_below(out, each)), None):
        raise ValueError(f"{out}: the curve beside it would be a picture of {inside}: name another place")
    if out == curve:
        raise ValueError(f"{out}: the curve is drawn there, name the model otherwise")
    refuse_unwritable(out)
    if out.exists() and not resume:
        raise FileExistsError(f"{out} is there already: --resume goes on with it, another name starts anew")
    if curve.exists() and not out.exists():
        raise FileExistsError(f"{curve} is there already, and the curve would be drawn over it")


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _fingerprint(shards: Sequence[tuple[Tensor, ...]]) -> str:
    """By which the data are known again: of a few pairs of each shard."""
    digest = hashlib.sha256()
    for shard in shards:
        for part in shard:  # not by numpy: torch works without it
            few = part[:: max(1, len(part) // 8)].contiguous()
            digest.update(bytes(few.view(torch.uint8).flatten().tolist()))
    return digest.hexdigest()[:12]


def _scenes(folders: list[Path], seed: int, rank: int) -> Scenes:
    """Read the folders and say what was found there."""
    scenes = Scenes(*folders, seed=seed)
    if rank == 0:
        tell_skipped(scenes.skipped)
        if not scenes.swap or scenes.planes:
            few, many = min(scenes.shots.values()), max(scenes.shots.values())
            shots = f"{few if few == many else f'{few} to {many}'} shots"
            print(f"{_scenes_in_words(len(scenes.shots))} of {shots}")
        for name, (rows, columns) in scenes.misaligned.items():
            print(
                f"warning: {name}: the shots are shifted by {rows:+.1f} rows and {columns:+.1f} columns; "
                "what does not lie on its twin is learnt as blur",
                file=sys.stderr,
            )
        kept_back = ("parts of " if scenes.parts else "") + _scenes_in_words(len(scenes.held_out))
        print(f"{scenes.pairs:,} patches; {kept_back} kept back")
        if scenes.held_out:
            estimate = noise_to_noise(lambda noisy: noisy, scenes.held_out)[1]
            print(f"the noisy shots themselves: clean, estimated {estimate:.3f} dB", flush=True)
            for doubt in doubts(scenes.held_out):
                print(f"warning: {doubt}: the estimate is not to be relied on", file=sys.stderr)
    return scenes


def _scenes_in_words(number: int) -> str:
    return f"{number} {'scene' if number == 1 else 'scenes'}"


def _scores(
    model: Model,
    val_data: tuple[Tensor, Tensor] | None,
    held_out: Sequence[tuple[Tensor, ...]],
    one_way: bool,
) -> dict[str, float]:
    """What an epoch is scored by, in dB. one_way: the first picture of a pair is no target."""
    if val_data:
        noisy, clean = val_data
        return {"PSNR": psnr(model.predict(noisy), clean).mean().item()}
    if not held_out:
        return {}
    if one_way:
        scores = [psnr(model.predict(first), torch.stack(rest).mean(0)) for first, *rest in held_out]
        return {"against the targets": torch.cat(scores).mean().item()}
    against = "noise to noise" if all(len(shots) == 2 for shots in held_out) else "mean of other shots"
    return dict(zip((against, "clean, estimated"), noise_to_noise(model.predict, held_out), strict=True))


def _best_epoch(record: list[dict[str, float]]) -> int:
    """The epoch of the best PSNR that was measured, the first of such. What is estimated follows that."""
    best = max(record, key=lambda each: list(each.values())[2])  # behind the epoch and its loss
    return int(best["epoch"])


def draw(record: list[dict[str, float]], path: Path) -> None:
    """The scores, or else the loss, against the epoch, as a PNG; nothing where there is no matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    figure = Figure(figsize=(5, 3.2), layout="constrained", dpi=150)
    axes = figure.subplots()
    names = [name for name in record[-1] if name not in ("epoch", "loss")]
    for name, style in zip(names or ["loss"], ("o-", "s--"), strict=False):
        points = [(each["epoch"], each[name]) for each in record if name in each]
        axes.plot(*zip(*points, strict=True), style, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("PSNR in dB, on pairs kept back" if len(names) > 1 else (names or ["loss"])[0])
    axes.locator_params(axis="x", integer=True)
    axes.legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _saved(model: Model, out: Path, recipe: dict) -> dict[str, Any]:
    """What `out` holds of this very training; `model` takes its weights. Raises `ValueError` otherwise."""
    content = model.load(out)
    made = content.get("recipe")
    if not isinstance(made, dict):
        raise ValueError(f"{out}: holds no training that could be gone on with; {_train_on(out)}")
    if str(made) != str(recipe):  # by text: whatever a stranger's file holds, it has one
        names = [name for name in recipe | made if str(made.get(name)) != str(recipe.get(name))]
        changes = ", ".join(f"{name} {made.get(name)} and not {recipe.get(name)}" for name in names)
        remedy = "what it was made with goes on" if "training" in content else f"done, {_train_on(out)}"
        raise ValueError(f"{out}: cannot go on, it was made with {changes}; {remedy}")
    if "training" not in content:
        return content
    state, record = content["training"], content.get("record", [])
    whole = isinstance(record, list) and all(
        isinstance(each, dict)
        and list(each)[:2] == ["epoch", "loss"]
        and all(isinstance(number, (int, float)) for number in each.values())
        for each in record
    )
    if not (whole and isinstance(state, dict) and "step" in state):
        raise ValueError(f"{out}: holds no state that a training could go on from")
    return content


def _train_on(out: Path) -> str:
    return f"--start {out} and another FILE train on from its weights"


def _refuse_disagreement(*of_this_process: Any) -> None:
    """Raise `ValueError` where processes would drift apart: of other data, or from another step."""
    if dist.is_initialized():
        all_of_them: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(all_of_them, of_this_process)
        if any(each != all_of_them[0] for each in all_of_them):
            seen = "; ".join(map(str, all_of_them))
            raise ValueError(f"the processes do not see the same data and the same FILE: {seen}")


@contextmanager
def _processes(device: str | None) -> Iterator[int]:
    """Join the processes that `torchrun` started, if it did; gives this one's rank."""
    on_cuda = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
    if "RANK" not in os.environ:
        yield 0
        return
    # Imported once there is a process group, as PyTorch does itself, its default arguments would hold that.
    import_module("torch.distributed.nn")
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield dist.get_rank()
    finally:
        # The group's threads end with the last reference to it. One that is still freeing tensors when the
        # interpreter ends aborts the process.
        gc.collect()
        dist.destroy_process_group()


@contextmanager
def _errors_naming(out: Path, resumed: bool) -> Iterator[None]:
    """Within, errors name the file: a training that diverged, or another training's state."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{out}: {error}" if resumed else error) from error
    except FloatingPointError as error:
        left = f"{out} has what it had after its last epoch" if out.exists() else f"{out} is not written"
        raise FloatingPointError(f"{error}; {left}") from error


def _any(here: bool) -> bool:
    """Whether it holds in any process: all must leave the training at the same step."""
    if not dist.is_initialized():
        return here
    anywhere = torch.tensor(float(here), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(anywhere, dist.ReduceOp.MAX)
    return bool(anywhere)
