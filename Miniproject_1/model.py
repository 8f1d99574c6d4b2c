"""A Noise2Noise image denoiser: the network, its training, and `Model`, the door to both.

Noise2Noise (Lehtinen et al. 2018, arXiv 1803.04189) learns to denoise from pairs of noisy pictures.
With the squared error, a network that must guess one noisy picture from another can do no better
than to answer the mean of all the pictures it might have been, and where the noise has zero mean,
that is the clean picture. So no clean picture is needed to learn from.

Images are N×3×H×W, or N×1×H×W for grey, with values in [0, 255] at every public door.
"""

import errno
import hashlib
import math
import os
import secrets
import shutil
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import lru_cache, partial, reduce
from glob import escape
from itertools import islice, pairwise, product
from numbers import Integral
from pathlib import Path
from threading import Barrier
from typing import IO, Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

try:
    from tqdm import tqdm
except ModuleNotFoundError:
    tqdm = None

LEARNING_RATE = 2e-3  # AdamW's at its highest, from scratch
MOMENTUM = 0.95  # Muon's
MUON_FACTOR = 5  # Muon's learning rate is this many times AdamW's
FINE_TUNING_LEARNING_RATE = 4e-5  # after load_pretrained_model ...
KEPT = 0.4  # ... and the share of the loaded weights that is mixed in at the end, lest they be unlearnt
BATCH_SIZE = 32
COLOURS = 3
SYMMETRIES = 8  # of the square: the ways to flip and transpose a picture, the group D4
FORMAT = 3  # of the files that Model.save writes
LARGEST = 2_000  # noise may leave [0, 255], but not so far
CHECK_EVERY = 100  # steps between two looks at whether all numbers are finite
WARMUP = 0.03  # the part of the training in which the learning rate rises
TILE = 512  # predict cuts larger pictures into tiles of this many pixels a side ...
PIXELS_AT_ONCE = 2**14  # ... and batches into parts of about so many pixels, or of one tile;
MORE_ON_A_GPU = 32  # times as many there, to keep it busy
MOST_AT_ONCE = 8  # parts that are computed side by side, so that memory is bounded on many cores too

# ------------------------------------------------------------------------------------------------
# The network


class EquivariantConv2d(nn.Conv2d):
    """A convolution that is equivariant to the symmetries of the square (the group D4).

    A group convolution (Cohen and Welling 2016, arXiv 1602.07576). Channels stand in groups of eight, the
    answers of one filter in its eight orientations: where the input is flipped or transposed, each channel is
    too, and the eight of a group change places. So `weight` and `bias` hold one filter of eight. The only
    other inputs are the three colours, which keep their places.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs // SYMMETRIES, size, stride, padding=(size - stride) // 2)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the ordinary convolution that computes the same."""
        return whole_kernel(self.weight), self.get_parameter("bias").repeat_interleave(SYMMETRIES)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.whole(), self.stride, self.padding)


class EquivariantConvTranspose2d(nn.ConvTranspose2d):
    """The same for a transposed convolution that doubles the picture; without biases."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs // SYMMETRIES, outputs, 2, 2, bias=False)

    def whole(self) -> tuple[Tensor, None]:
        return whole_kernel(self.weight), None

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.conv_transpose2d(x, *self.whole(), self.stride)


class EquivariantToColours(nn.Conv2d):
    """The same for a 3×3 convolution that ends in colours."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs // SYMMETRIES, COLOURS, 3, padding=1)

    def whole(self) -> tuple[Tensor, Tensor]:
        return whole_kernel(self.weight.transpose(0, 1)).transpose(0, 1), self.get_parameter("bias")

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.whole(), padding=self.padding)


def ordinary_conv2d(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """In the place of an `EquivariantConv2d`, at the same cost: each channel has a filter of its own."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=(size - stride) // 2)


def whole_kernel(weight: Tensor) -> Tensor:
    """All eight orientations of the filters that an equivariant convolution stores: F×C×k×k -> 8F×C×k×k."""
    index = _kernel_index(weight.shape, weight.device)
    return weight.flatten().index_select(0, index).view(-1, *weight.shape[1:])


@lru_cache
def _kernel_index(shape: torch.Size, device: torch.device) -> Tensor:
    """Which of a `weight`'s numbers, flattened, stands where in its whole kernel."""
    with torch.inference_mode(False):  # else training could not use it
        stored = torch.arange(shape.numel(), device="cpu").view(shape)
        corners = torch.arange(4, device="cpu").view(2, 2)  # all different: they tell the eight ways apart
        ways = [dihedral(corners, way) for way in range(SYMMETRIES)]
        orientations = []
        for way in range(SYMMETRIES):
            kernel = dihedral(stored, way)
            if shape[1] % SYMMETRIES == 0:  # groups of eight inputs, not colours
                # Input n of a group is the answer in way n, and turned by `way` the answer in another: each
                # place takes the input that becomes its own.
                turned = [dihedral(each, way).tolist() for each in ways]
                order = [turned.index(each.tolist()) for each in ways]
                kernel = kernel.unflatten(1, (-1, SYMMETRIES))[:, :, order].flatten(1, 2)
            orientations.append(kernel)
        return torch.stack(orientations, 1).flatten().to(device)


def dihedral(images: Tensor, way: int) -> Tensor:
    """One of the eight flips and transposes of a square; `way` in 0 ... 7, from 4 on with H and W swapped."""
    images = images.flip([dim for dim, bit in ((-1, 1), (-2, 2)) if way & bit])
    return images.transpose(-2, -1) if way & 4 else images


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), two 3×3 convolutions."""

    def __init__(self, channels: int, conv: Callable[..., nn.Conv2d]) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, 3), conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        # In place where autograd allows it: on a CPU, fresh memory costs more than the arithmetic.
        return self.conv2(self.conv1(x).relu_()).add_(x)


class UNet(nn.Module):
    """A residual U-Net without normalisation: N×3×H×W -> N×3×H×W, floating point in [0, 255] both ways.

    widths: channels on each level, from fine to coarse, in groups of eight; blocks: residual blocks on each
    level and side; equivariant: whether eight channels share a filter. Ordinary convolutions cost as much to
    compute and have eight times the parameters, which pay only after hours of training. The defaults are what
    learns most in the five minutes that the course gives a CPU.
    Raises `ValueError` for no widths, and for such that are no multiples of 8.

    Each level halves the picture with a strided convolution; on the way up, a transposed one doubles
    it again and the encoder's features are added. The last convolution starts at zero and its
    output is added to the input: an untrained network changes nothing, and all that it has to learn
    is the noise. Any H and W: inside, they are padded to multiples of `stride`. Where they are such
    multiples, an equivariant network answers a flipped or transposed picture with the flipped or transposed
    answer.
    """

    def __init__(self, widths: Sequence[int] = (48, 96), blocks: int = 2, equivariant: bool = True) -> None:
        super().__init__()
        if not widths or any(width < 1 or width % SYMMETRIES for width in widths):
            raise ValueError(f"widths: expected multiples of {SYMMETRIES}, got {tuple(widths)}")
        self.shape: dict[str, Any] = {"widths": list(widths), "blocks": blocks, "equivariant": equivariant}
        self.stride = 2 ** (len(widths) - 1)
        # How many pixels away an output can depend on an input: head, tail and the 2 * blocks convolutions of
        # each stage see one pixel of their level further each, the strided ones together less than `stride`.
        self.reach = 2 + 2 * blocks * (2 * (self.stride - 1) + self.stride) + self.stride

        conv: Callable[..., nn.Conv2d] = EquivariantConv2d
        doubling: Callable[..., nn.ConvTranspose2d] = EquivariantConvTranspose2d
        to_colours: Callable[..., nn.Conv2d] = EquivariantToColours
        if not equivariant:
            conv, doubling = ordinary_conv2d, partial(nn.ConvTranspose2d, kernel_size=2, stride=2)
            to_colours = partial(ordinary_conv2d, outputs=COLOURS, size=3)

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width, conv) for _ in range(blocks)))

        steps = list(pairwise(widths))
        self.head = conv(COLOURS, widths[0], 3)
        self.encoder = nn.ModuleList(stage(width) for width in widths[:-1])
        self.down = nn.ModuleList(conv(fine, coarse, 2, 2) for fine, coarse in steps)
        self.bottom = stage(widths[-1])
        self.up = nn.ModuleList(doubling(coarse, fine) for fine, coarse in steps)
        self.decoder = nn.ModuleList(stage(width) for width in widths[:-1])
        self.tail = to_colours(widths[0])
        self.initialise()

    def initialise(self) -> None:
        """Kaiming (He et al. 2015, arXiv 1502.01852), residual branches small, the last layer zero."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.conv2.weight.data.mul_(0.3)
        nn.init.zeros_(self.tail.weight)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if width <= self.stride < height:
            # In bfloat16 on AMX, PyTorch's strided convolutions give garbage where their output is one column
            # wide (seen in 2.14), but not where it is one row high.
            return self.forward(images.mT.clone(memory_format=torch.channels_last)).mT
        right, below = -width % self.stride, -height % self.stride
        # Mirrored: the last row, repeated, would make a pattern of its noise. Tiny pictures have no other.
        mode = "reflect" if right < width and below < height else "replicate"
        x = self.head(F.pad(images, (0, right, 0, below), mode=mode) / 255 - 0.5)
        skips = []
        for encode, down in zip(self.encoder, self.down, strict=True):
            skips.append(encode(x))
            x = down(skips[-1])
        x = self.bottom(x)
        for up, skip, decode in reversed(list(zip(self.up, skips, self.decoder, strict=True))):
            x = decode(up(x).add_(skip))
        residual = self.tail(x).to(images.dtype)
        return images + 255 * residual[..., :height, :width]


# ------------------------------------------------------------------------------------------------
# Training


def psnr_loss(guess: Tensor, target: Tensor, floor: float = 1e-4) -> Tensor:
    """The mean over images of log(mean squared error + `floor`): N×3×H×W twice, values in [0, 1] -> scalar.

    Known as PSNR loss (Chen et al. 2021, HINet, arXiv 2105.06086), but for a factor and a constant. PSNR is
    that logarithm, and what is reported is its mean over images, so every image should count alike. Under the
    plain mean the few with the strongest noise would count most, and their gradients are the noisiest. An
    image's error is a mean over so many pixels that the logarithm is almost linear in any single one's: the
    best guess stays close to the mean of the targets, the clean picture.
    """
    # By default the error of a noise of 40 dB: an image without noise must not count without bound.
    return (F.mse_loss(guess, target, reduction="none").mean((1, 2, 3)) + floor).log().mean()


class KernelMuon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for whole kernels of convolutions.

    A kernel is a matrix with a row for each output channel, of which an equivariant convolution stores every
    eighth. PyTorch's own Muon takes matrices only, and computes in bfloat16 everywhere: on a processor that
    has to emulate it, that was a third of a training's time.
    """

    def __init__(self, layers: Sequence[nn.Conv2d], learning_rate: float) -> None:
        super().__init__([layer.weight for layer in layers], {"lr": learning_rate})
        self.alike: dict[Any, list[nn.Conv2d]] = {}  # of one kind and shape, and so computed at once
        for layer in layers:
            self.state[layer.weight]["momentum"] = torch.zeros_like(layer.weight)
            self.alike.setdefault((type(layer), layer.weight.shape), []).append(layer)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        learning_rate = self.param_groups[0]["lr"]
        for layers in self.alike.values():
            layers = [layer for layer in layers if layer.weight.grad is not None]
            if not layers:
                continue
            matrices = orthogonalised(torch.stack([self._update(layer).flatten(1) for layer in layers]))
            rows, columns = matrices.shape[1:]
            step = learning_rate * math.sqrt(max(1, rows / columns))
            for layer, matrix in zip(layers, matrices, strict=True):
                stored = matrix[:: rows // len(layer.weight)]
                layer.weight.sub_(stored.view_as(layer.weight), alpha=step)

    def _update(self, layer: nn.Conv2d) -> Tensor:
        """Nesterov's momentum, as a whole kernel."""
        gradient, momentum = layer.weight.grad, self.state[layer.weight]["momentum"]
        assert gradient is not None
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = gradient.lerp(momentum, MOMENTUM)
        return whole_kernel(update) if isinstance(layer, EquivariantConv2d) else update


def orthogonalised(matrices: Tensor) -> Tensor:
    """About the closest ones whose singular values are all 1, by five of Muon's Newton-Schulz steps: N×r×c.

    In bfloat16, which is enough, on devices that compute in it.
    """
    flat = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    flat = flat / flat.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    flat = flat.bfloat16() if bfloat16(flat.device) else flat
    for _ in range(5):
        gram = flat @ flat.mT
        poly = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        flat = torch.baddbmm(flat, poly, flat, beta=3.4445)
    return flat.mT if matrices.shape[1] > matrices.shape[2] else flat


def muon_and_adamw(
    network: nn.Module, learning_rate: float, muon_factor: float = MUON_FACTOR
) -> list[torch.optim.Optimizer]:
    """Muon, at `muon_factor` times AdamW's rate, for all convolutions but the first and last; AdamW else."""
    hidden = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][1:-1]
    matrices = {id(layer.weight) for layer in hidden}
    others = [weight for weight in network.parameters() if id(weight) not in matrices]
    adamw = torch.optim.AdamW(others, learning_rate, betas=(0.9, 0.95), weight_decay=0, fused=True)
    return [KernelMuon(hidden, muon_factor * learning_rate), adamw] if hidden else [adamw]


def warmup_cosine(done: float) -> float:
    """Rise over the first `WARMUP` of the training, then fall as a cosine to 0."""
    return min(1, done / WARMUP) * (1 + math.cos(math.pi * done)) / 2


class Workers(ThreadPoolExecutor):
    """Threads that compute side by side, each on its share of the cores, and meet when all are done.

    PyTorch's own threads share every single operation and wait for each other in a spin: where another
    program takes one of the cores, all wait for that one, some hundred times a step.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.cores = number, max(1, torch.get_num_threads() // number)
        if number > 1:
            started = Barrier(number)

            def start(_: int) -> None:
                torch.get_num_threads()  # at its first look, a thread takes over for good what is set then
                started.wait()  # lest one does it twice, and another never

            try:
                with self.own_cores():
                    list(self.map(start, range(number)))
            except BaseException:
                started.abort()  # lest those that have started wait for ever for one that cannot
                raise

    @contextmanager
    def own_cores(self) -> Iterator[None]:
        """Within, this thread too, and each that starts, computes on as many cores as each of the others."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.cores)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def map(self, function: Callable, *arguments: Iterable) -> Iterator:  # type: ignore[override]
        """As the built-in `map`, which it is where there is one worker only."""
        return super().map(function, *arguments) if self.number > 1 else map(function, *arguments)


class Progress(NamedTuple):
    """Where a training stands after a step."""

    epoch: int  # 1 ... epochs
    loss: float | None  # the mean over the epoch, after its last step; None after the others


class Training:
    """Trains `network` in place, on the device it is on, to guess each noisy picture from its twin.

    Iterating takes a step at a time and gives a `Progress` after each; it can be left after any of them.
    `state_dict` has all that it takes to go on as if it had never stopped, bit for bit on a CPU. Where
    `torch.distributed` is initialised, each process takes its part of every batch.

    shards: one or more of (noisy_a, noisy_b), each N×3×H×W, two noisy pictures of each scene, values in
        [0, 255]. One at a time is on the device.
    batch_size: pairs a step, over all processes.
    learning_rate: handed to `optimizers`, and scaled at each step by `schedule`.
    loss: of guess and target, both scaled to [0, 1].
    optimizers: makes them from the network and the learning rate.
    schedule: the factor of the learning rate, from the part of the training that is done (0 ... 1).
    augment: flip and transpose the pictures at random.
    swap: let the two pictures of a pair change places. Not for pairs where only the second one's
        noise has zero mean.
    channels_last: the memory layout, which is faster on most devices.
    mixed_precision: bfloat16 for what autocast takes for safe, on devices that compute faster so.
    shares: parts of a batch that are computed side by side; by default as many as PyTorch has threads on
        a CPU, and one on a GPU.
    kept: the share, 0 to 1, of the weights that it starts with in those after its last step: what was known
        before is not forgotten for what is new (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).

    Raises `ValueError` for less than one epoch, shard or pair a batch, and while iterating
    `FloatingPointError` when the loss or a weight becomes NaN or infinite; the network then has the
    weights that were last seen to be good, `CHECK_EVERY` steps before at most.
    """

    def __init__(
        self,
        network: nn.Module,
        shards: Sequence[tuple[Tensor, Tensor]],
        epochs: int,
        *,
        learning_rate: float = LEARNING_RATE,
        batch_size: int = BATCH_SIZE,
        loss: Callable[[Tensor, Tensor], Tensor] = psnr_loss,
        optimizers: Callable[[nn.Module, float], list[torch.optim.Optimizer]] = muon_and_adamw,
        schedule: Callable[[float], float] = warmup_cosine,
        augment: bool = True,
        swap: bool = True,
        channels_last: bool = True,
        mixed_precision: bool = True,
        shares: int | None = None,
        kept: float = 0,
    ) -> None:
        for name, number in (("epochs", epochs), ("batch_size", batch_size), ("shards", len(shards))):
            if number < 1:
                raise ValueError(f"{name}: expected 1 or more, got {number}")
        self.network, self.shards, self.epochs, self.batch_size = network, shards, epochs, batch_size
        self.learning_rate, self.loss, self.schedule = learning_rate, loss, schedule
        self.augment, self.swap, self.step = augment, swap, 0  # steps that were taken
        self.device = next(network.parameters()).device
        self.bfloat16 = mixed_precision and bfloat16(self.device)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=self.layout)
        self.shares = shares or (torch.get_num_threads() if self.device.type == "cpu" else 1)
        self.optimizers = optimizers(network, learning_rate)
        self.steps_an_epoch = sum(math.ceil(len(noisy_a) / batch_size) for noisy_a, _ in shards)
        self.steps = epochs * self.steps_an_epoch
        self._join_processes()
        self.losses: list[float] = []  # of this epoch
        self.unchecked: list[tuple[Tensor, float]] = []  # loss and learning rate of the steps since _check
        self.kept, self.first_weights = kept, deepcopy(network.state_dict()) if kept else {}
        self.good_weights = deepcopy(network.state_dict())

    def _join_processes(self) -> None:
        """Take a place among the processes of `torch.distributed`, and the first one's seed and weights."""
        self.rank, self.processes = 0, 1
        seed = torch.randint(2**48, (), device="cpu").to(self.device)
        if dist.is_available() and dist.is_initialized():
            self.rank, self.processes = dist.get_rank(), dist.get_world_size()
            # All must shuffle and augment alike, whatever each was seeded with, and start alike.
            for tensor in (seed, *self.network.state_dict().values()):
                dist.broadcast(tensor, 0)
        self.seed = int(seed)

    def __iter__(self) -> Iterator[Progress]:
        try:
            with Workers(self.shares) as workers:
                while self.step < self.steps:
                    yield from self._rest_of_epoch(workers)
        finally:  # also where Ctrl-C came in the middle of a step
            self.network.zero_grad()
            if not _finite(self.network):
                self.network.load_state_dict(self.good_weights)

    def _rest_of_epoch(self, workers: Workers) -> Iterator[Progress]:
        done, first = divmod(self.step, self.steps_an_epoch)
        epoch, start = done + 1, time.perf_counter()
        label = f"epoch {epoch}/{self.epochs}"
        if first == 0:
            self.losses.clear()
        batches = islice(self._batches(self.seed + epoch), first, None)
        steps: Iterable[int] = range(first + 1, self.steps_an_epoch + 1)
        if tqdm and self.rank == 0:
            steps = tqdm(steps, label, self.steps_an_epoch, initial=first, unit="batch")
        for number in steps:
            with workers.own_cores():
                self._take_step(*next(batches), workers)
            if number < self.steps_an_epoch:
                yield Progress(epoch, None)
        mean_loss = sum(self.losses) / len(self.losses)
        if tqdm is None and self.rank == 0:
            print(f"{label}: loss {mean_loss:.5f}, {time.perf_counter() - start:.0f} s", flush=True)
        yield Progress(epoch, mean_loss)

    def _take_step(self, noisy_a: Tensor, noisy_b: Tensor, workers: Workers) -> None:
        loss, *gradients = self._loss_and_gradients(noisy_a, noisy_b, workers)
        for weight, gradient in zip(self.network.parameters(), gradients, strict=True):
            # In the weight's own layout, which AdamW's fused step takes for granted.
            weight.grad = torch.empty_like(weight).copy_(gradient)
        factor = self.schedule((self.step + 0.5) / self.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
            optimizer.step()
        self.network.zero_grad()
        self.step += 1
        if self.kept and self.step == self.steps:
            self._mix_with_first_weights()
        self.unchecked.append((loss, self.learning_rate * factor))
        if len(self.unchecked) == CHECK_EVERY or self.step % self.steps_an_epoch == 0:
            self._check()

    @torch.no_grad()
    def _mix_with_first_weights(self) -> None:
        for name, weight in self.network.named_parameters():
            weight.lerp_(self.first_weights[name], self.kept)

    def _loss_and_gradients(self, noisy_a: Tensor, noisy_b: Tensor, workers: Workers) -> list[Tensor]:
        """The mean loss over a batch and each weight's gradient of it."""
        parameters, whole = list(self.network.parameters()), len(noisy_a)

        def of_share(source: Tensor, target: Tensor) -> list[Tensor]:
            if len(source) == 0:  # fewer pairs than processes
                return [torch.zeros((), device=self.device), *map(torch.zeros_like, parameters)]
            source, target = (images.contiguous(memory_format=self.layout) for images in (source, target))
            # Without the cache, which within a caller's own autocast would keep the first step's weights.
            with torch.autocast(self.device.type, torch.bfloat16, self.bfloat16, cache_enabled=False):
                guess = self.network(source)
            loss = self.loss(guess / 255, target / 255) * (len(source) / whole)
            return [loss.detach(), *torch.autograd.grad(loss, parameters)]

        own = slice(self.rank, None, self.processes)
        shares = workers.map(of_share, *(images[own].chunk(self.shares) for images in (noisy_a, noisy_b)))
        total = [reduce(torch.add, parts) for parts in zip(*shares, strict=True)]
        if self.processes > 1:
            message = parameters_to_vector([each.contiguous() for each in total])
            dist.all_reduce(message)
            vector_to_parameters(message, total)
        return total

    def _batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, `float32`: each shard in turn, shuffled. The same seed draws the same."""
        on_device, on_host = (torch.Generator(where).manual_seed(seed) for where in (self.device, "cpu"))
        for index in torch.randperm(len(self.shards), generator=on_host, device="cpu").tolist():
            # A shard moves to the device at once, uint8 as uint8: no step touches the host's memory.
            noisy_a, noisy_b = (
                part.detach().to(self.device, torch.float32 if part.is_floating_point() else None)
                for part in self.shards[index]
            )
            order = torch.randperm(len(noisy_a), generator=on_device, device=self.device)
            for batch in order.split(self.batch_size):
                a, b = noisy_a[batch], noisy_b[batch]
                if self.swap:
                    draw = torch.rand(len(a), generator=on_device, device=self.device, dtype=torch.float32)
                    swapped = (draw < 0.5).view(-1, 1, 1, 1)
                    a, b = torch.where(swapped, b, a), torch.where(swapped, a, b)
                if self.augment:  # alike in the whole batch, drawn on the host: the device is not waited for
                    way = int(torch.randint(SYMMETRIES, (), generator=on_host, device="cpu"))
                    a, b = dihedral(a, way), dihedral(b, way)
                yield a.float(), b.float()
            del noisy_a, noisy_b  # before the next shard is read

    def _check(self) -> None:
        """Raise, with the last good weights, where a loss since the last check or a weight is not finite."""
        # The device is waited for only here.
        losses = torch.stack([loss for loss, _ in self.unchecked]).tolist() if self.unchecked else []
        bad = [index for index, loss in enumerate(losses) if not math.isfinite(loss)]
        if bad or not _finite(self.network):
            first, checked = bad[0] if bad else len(losses) - 1, self.step - len(losses)
            self.network.load_state_dict(self.good_weights)
            raise FloatingPointError(
                f"the loss became NaN or infinite at step {checked + first + 1}, at a learning rate of "
                f"{self.unchecked[first][1]:.3g}; the network has the weights of step {checked} again"
            )
        self.losses += losses
        self.unchecked.clear()
        self.good_weights = deepcopy(self.network.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that it takes to go on: the live tensors, so save it at once. Raises `FloatingPointError`."""
        self._check()
        done = {"step": self.step, "seed": self.seed, "losses": self.losses}
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        weights = {"network": self.network.state_dict(), "first_weights": self.first_weights}
        return done | weights | {"optimizers": optimizers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` of the same training was taken.

        Raises `ValueError` for another's; the weights then stay as they were.
        """
        try:
            step, seed, losses = int(state["step"]), int(state["seed"]), list(state["losses"])
            first_weights = self.first_weights
            if self.kept:
                self.network.load_state_dict(state["first_weights"])
                first_weights = deepcopy(self.network.state_dict())
            self.network.load_state_dict(state["network"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            if not (0 <= step <= self.steps and _finite(self.network)):
                raise ValueError(f"expected finite weights and a step of 0 ... {self.steps}, got step {step}")
        except Exception as reason:  # a stranger's, perhaps
            self.network.load_state_dict(self.good_weights)
            raise ValueError(f"state: not of such a training: {type(reason).__name__}: {reason}") from reason
        self.step, self.seed, self.losses, self.first_weights = step, seed, losses, first_weights
        self.good_weights = deepcopy(self.network.state_dict())


def _finite(network: nn.Module) -> bool:
    return all(weight.isfinite().all() for weight in network.parameters())


def bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; where it is emulated, `float32` is faster."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Processors with AMX have AVX512-BF16 too. Elsewhere (MPS, Arm) nobody has measured a gain here.
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))


# ------------------------------------------------------------------------------------------------
# The contract


class Model:
    """The denoiser, made untrained.

    device: where it computes; by default the accelerator that PyTorch finds, else the CPU.
    network: a `UNet`, in `float32`. learning_rate: AdamW's highest in `train`; lower once weights are loaded.
    kept: the share of the weights before `train` in those after it, as in `Training`; of new ones none.
    mixed_precision: whether to compute in bfloat16 where the device is faster so.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        found = torch.accelerator.current_accelerator(check_available=True)
        self.device = torch.device(device or found or "cpu")
        with torch.inference_mode(False):  # weights made in inference mode could never be trained
            self.network = UNet().to(self.device, torch.float32, memory_format=torch.channels_last)
        self.learning_rate, self.kept, self.mixed_precision = LEARNING_RATE, 0.0, True

    def load_pretrained_model(self) -> None:
        """Take the weights of `bestmodel.pth`, beside this file. Nothing in the file is executed.

        Raises `FileNotFoundError` where the file is missing and `ValueError` where it does not hold
        a `UNet`'s weights; the model then stays as it was.
        """
        try:
            self.load(Path(__file__).with_name("bestmodel.pth"))
        except (FileNotFoundError, ValueError) as error:
            remedy = "restore it, or make it again: python -m Miniproject_1 pretrain DATA -o FILE"
            raise type(error)(f"{error}; {remedy}") from error

    def save(self, path: str | Path, **more: Any) -> None:
        """Write the network's weights, and whatever `more` torch.save can write, to `path`.

        An existing file is replaced only once the new one is whole. Raises `OSError` as `open` does.
        """
        with atomic_write(path) as file:
            own = {"format": FORMAT, "shape": self.network.shape, "weights": self.network.state_dict()}
            torch.save(own | more, file)

    def load(self, path: str | Path) -> dict[str, Any]:
        """Take the weights in `path`: what `save` wrote, or a bare `state_dict`.

        The network takes the shape that `save` wrote beside them; without one, they must fit the model's own.
        Returns all that the file holds. Nothing in it is executed. Raises `FileNotFoundError` where it is
        missing and `ValueError` where it holds no weights of such a network; the model then stays as it was.
        """
        content = read(Path(path))
        saved = isinstance(content, dict) and "format" in content
        if saved and not (isinstance(content["format"], int) and content["format"] == FORMAT):
            raise ValueError(f"{path} has format {content['format']!r:.20}, expected {FORMAT}")
        weights = content.get("weights") if saved else content
        network = self._network_of(content.get("shape") if saved else None)
        own = network.state_dict() if network else {}
        if not (
            network
            and isinstance(weights, dict)
            and weights.keys() == own.keys()
            and all(is_whole(value) and value.shape == own[name].shape for name, value in weights.items())
            and all(each.is_floating_point() and each.float().isfinite().all() for each in weights.values())
        ):
            raise ValueError(f"{path} does not hold the weights, all finite, of a network of this kind")
        if network.shape != self.network.shape:
            with torch.inference_mode(False):
                self.network = network.to_empty(device=self.device).to(memory_format=torch.channels_last)
        self.network.load_state_dict(weights)
        self.learning_rate, self.kept = FINE_TUNING_LEARNING_RATE, KEPT
        return content

    def _network_of(self, shape: Any) -> UNet | None:
        """A network of this shape, by default the model's, that takes no memory yet; None if it is none."""
        shape = self.network.shape if shape is None else shape
        with torch.inference_mode(False), torch.device("meta"), suppress(Exception):  # a stranger's shape
            if len(shape["widths"]) < 16 and shape["blocks"] < 100:
                return UNet(**shape).to(torch.float32)
        return None

    def train(
        self,
        noisy_a: Tensor,
        noisy_b: Tensor,
        epochs: int = 1,
        *,
        num_epochs: int | None = None,
        after_epoch: Callable[[int, float], None] | None = None,
    ) -> None:
        """Train on pairs of noisy pictures, from the weights that the model has.

        Weights that were loaded are fine-tuned: at a low learning rate, and the share `kept` of what they
        were is mixed in after the last step.

        noisy_a, noisy_b: N×3×H×W, or N×1×H×W for grey, two independent noisy pictures of each of N scenes,
            `uint8` or floating point, values in [0, 255]. They stay as they are. Floating-point noise may go
            beyond that range, and should: clipped, its mean would no longer be zero.
        epochs: times that every pair is used; the learning rate is scheduled over all of them.
        num_epochs: the course's own spelling of `epochs`, which it replaces.
        after_epoch: called with the number of epochs done and the last one's mean training loss.

        The same `torch.manual_seed` before it gives the same weights, bit for bit on a CPU with as many
        threads. Interrupted, it leaves the weights so far; where the training diverges, it raises
        `FloatingPointError` and leaves those that were last seen to be good.
        Raises `TypeError` or `ValueError`, before any work, for anything else.
        """
        epochs = epochs if num_epochs is None else num_epochs
        _check_images(noisy_a=noisy_a, noisy_b=noisy_b)
        if noisy_a.shape != noisy_b.shape or noisy_a.numel() == 0:
            raise ValueError(
                "noisy_a and noisy_b: expected the same shape and at least one pair, "
                f"got {tuple(noisy_a.shape)} and {tuple(noisy_b.shape)}"
            )
        if isinstance(epochs, bool) or not isinstance(epochs, Integral) or epochs < 1:
            raise ValueError(f"epochs: expected a whole number, 1 or more, got {epochs!r}")
        if after_epoch is not None and not callable(after_epoch):
            raise TypeError(f"after_epoch: expected a function, got {type(after_epoch).__name__}")
        # A grader may have switched gradients off for everything; what was set outside stays set.
        with torch.inference_mode(False), torch.enable_grad():
            options: dict[str, Any] = {"mixed_precision": self.mixed_precision}
            options |= {"learning_rate": self.learning_rate, "kept": self.kept}
            pairs = noisy_a.expand(-1, COLOURS, -1, -1), noisy_b.expand(-1, COLOURS, -1, -1)
            for epoch, loss in Training(self.network, [pairs], epochs, **options):
                if loss is not None and after_epoch:
                    after_epoch(epoch, loss)

    def predict(self, x: Tensor) -> Tensor:
        """Denoise pictures.

        x: N×3×H×W, or N×1×H×W for grey, `uint8` or floating point, values in [0, 255]; any N, H and W, on any
            device.
        Returns a new `float32` tensor of the same shape, on the same device, values in [0, 255].

        By tiles that overlap by as much as the network can see: what a pixel becomes depends neither on the
        batch it is in nor on the tiling, and memory is bounded whatever N, H and W. Computed in `float32`, or
        in bfloat16 on a CPU that is faster so: 0.1 grey levels away on average, and as good.
        Raises `TypeError` or `ValueError` for anything else.
        """
        _check_images(x=x)
        output, parts = torch.empty(x.shape, dtype=torch.float32, device=x.device), self._parts(x)
        grey, x = x.shape[1] == 1, x.expand(-1, COLOURS, -1, -1)
        most = min(torch.get_num_threads(), MOST_AT_ONCE, len(parts)) if self.device.type == "cpu" else 1
        large = len(parts) > 3 * len(x)  # of more tiles than three
        bar = tqdm(parts, "predict", unit="tile", leave=False) if tqdm and large else parts
        with Workers(max(1, most)) as workers:
            for part, denoised in zip(bar, workers.map(partial(self._denoise, x), parts), strict=True):
                images, rows, columns = part
                output[images, :, rows, columns] = denoised.mean(1, keepdim=True) if grey else denoised
        return output

    def _parts(self, x: Tensor) -> list[tuple[slice, ...]]:
        """(images, rows, columns) of what is computed at once: a tile of one image or of several."""
        number, _, height, width = x.shape
        most = PIXELS_AT_ONCE * (1 if self.device.type == "cpu" else MORE_ON_A_GPU)
        at_once = max(1, most // (min(height, TILE) * min(width, TILE)))
        cuts = ((number, at_once), (height, TILE), (width, TILE))
        return list(product(*([slice(i, i + step) for i in range(0, end, step)] for end, step in cuts)))

    def _denoise(self, x: Tensor, part: tuple[slice, ...]) -> Tensor:
        images, rows, columns = part
        margin = math.ceil(self.network.reach / self.network.stride) * self.network.stride
        top, left = max(0, rows.start - margin), max(0, columns.start - margin)
        region = x[:, :, top : rows.stop + margin, left : columns.stop + margin]
        # The last part is filled up with the first images: another number of them might be summed in
        # another order, and in bfloat16 that would show.
        region = region[torch.arange(images.start, images.stop, device=x.device) % len(x)]
        region = region.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), _own_precision(self.device, self.mixed_precision):
            denoised = self.network(region).clamp(0, 255)[: len(x) - images.start]
        return denoised[..., rows.start - top :, columns.start - left :][..., :TILE, :TILE]


@contextmanager
def _own_precision(device: torch.device, mixed: bool) -> Iterator[None]:
    """bfloat16 where `mixed` on a CPU that is faster so, else `float32`; whatever the caller has set."""
    if device.type == "cuda":  # where `float32` is fast, and TF32's rounding depends on the batch
        convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        callers = convolutions.fp32_precision
        convolutions.fp32_precision = "ieee"
    mixed = mixed and device.type == "cpu" and bfloat16(device)
    try:
        with torch.autocast(device.type, torch.bfloat16 if mixed else None, mixed, cache_enabled=False):
            yield
    finally:
        if device.type == "cuda":
            convolutions.fp32_precision = callers


def _check_images(**arguments: Tensor) -> None:
    """Raise unless each is N×3×H×W or N×1×H×W, in [0, 255] but for noise; warn of other ranges."""
    unusual = {}
    for name, images in arguments.items():
        _check_kind(name, images)
        if images.is_floating_point() and images.numel():
            low, high = torch.stack(images.detach().aminmax()).tolist()
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
            if max(-low, high) > LARGEST:
                raise ValueError(f"{name}: expected values in [0, 255], got {low:.4g} to {high:.4g}")
            mean = images.detach().mean().item()
            if 0 < high <= 2 or mean > 255:  # [0, 1] and noise, or a sensor's counts
                unusual[name] = f"{low:.4g} to {high:.4g}"
    if unusual:
        names, ranges = (" and ".join(part) for part in (unusual, unusual.values()))
        warnings.warn(f"{names}: values in [0, 255] are expected; these are {ranges}", stacklevel=3)


def _check_kind(name: str, images: Tensor) -> None:
    """Raise unless it is a dense N×3×H×W or N×1×H×W tensor of a type that pictures have."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(images).__name__}")
    if images.is_nested:
        raise TypeError(f"{name}: expected a dense tensor, got a nested one")
    if images.layout != torch.strided or images.is_meta:
        raise TypeError(f"{name}: expected a dense tensor, got {images.layout} on {images.device}")
    if images.dtype not in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"{name}: expected uint8 or floating point of 16 to 64 bits, got {images.dtype}")
    if images.ndim != 4 or images.shape[1] not in (1, COLOURS) or 0 in images.shape[2:]:
        remedy = f"; for one image: {name}.unsqueeze(0)" if images.ndim == 3 else ""
        raise ValueError(f"{name}: expected N×3×H×W, or N×1×H×W for grey, got {tuple(images.shape)}{remedy}")


# ------------------------------------------------------------------------------------------------
# Files


def read(path: Path, *, mmap: bool = False) -> Any:
    """What torch.save wrote to `path`, on the CPU; `weights_only`, so that nothing in it is executed.

    With `mmap` tensors are read only as they are looked at. Raises `FileNotFoundError` where there is no
    such file, `OSError` where it may not be read, and `ValueError` where it holds something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        mmap = mmap and zipfile.is_zipfile(path)  # before 1.6, torch.save wrote what cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # a stranger's bytes: the unpickler can raise nearly anything
        reason = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        raise ValueError(
            f"{path}: cannot be read as what torch.save writes "
            f"(truncated, not such a file, or unsafe): {reason:.200}"
        ) from error


def is_whole(value: Any) -> bool:
    """Whether it is a tensor on the CPU whose numbers are all there: a few bytes can claim any shape."""
    return (
        isinstance(value, Tensor)
        and not value.is_nested
        and (value.layout, value.device.type) == (torch.strided, "cpu")
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file beside `path`; it becomes `path` when the block ends well.

    If the block raises, `path` is left as it was and the temporary file is removed.
    The folder is made when it is missing, and what a link points to is replaced, not the link. A file that is
    replaced keeps its permissions where the file system lets it; in a folder that takes no new file, it is
    written over once all of the new one is there. Raises `OSError` as `open` and `os.replace` do, and where
    `path` is there and no file.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_file():  # a folder, or a device such as /dev/null
        raise FileExistsError(f"{path} is there and no file that could be replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name must be in the same folder: a rename is atomic only within one file system.
    temporary = path.with_name(f".{_short(path.name)}.{secrets.token_hex(4)}")
    try:
        file, named = _opened_beside(temporary, path)
        with file:
            yield file
            file.flush()
            _sync(file)
            if not named:
                file.seek(0)
                with open(path, "r+b") as old:
                    shutil.copyfileobj(file, old)
                    old.truncate()
                return
        with suppress(OSError):  # no such file yet, or a file system that has no permissions
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__  # torch.save buries it under an error of its own
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say of which file
        raise error from None


def _opened_beside(temporary: Path, path: Path) -> tuple[IO[bytes], bool]:
    """(the temporary file, whether it has its name): none where only `path` itself may be written."""
    try:
        return open(temporary, "x+b"), True
    except PermissionError:
        if not os.access(path, os.W_OK):
            raise
        return tempfile.TemporaryFile(), False


def _sync(file: IO[bytes]) -> None:
    """Have it written to the disk, on file systems that know what that is."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def remove_strays(path: Path) -> None:
    """Remove what an `atomic_write` to `path` left when the process was killed."""
    for stray in path.parent.glob(f".{escape(_short(path.name))}.????????"):
        stray.unlink()


def _short(name: str) -> str:
    """The name, or what stands for it in a temporary one: with more added, a long name would be too long."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 100 else hashlib.sha256(encoded).hexdigest()
