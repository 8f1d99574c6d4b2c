"""The other networks of the study. All take and return N×3×H×W with values in [0, 255], as `UNet` does."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...model import ResidualBlock, UNet


def benchmark_1() -> nn.Module:
    """The original report's first benchmark: half size and back, 48 channels, a ReLU at the end."""
    return nn.Sequential(
        Scale(1 / 255),
        *_convolutions(3, 48),
        nn.MaxPool2d(2),
        *_convolutions(48, 48),
        nn.Upsample(scale_factor=2),
        *_convolutions(48, 3),
        Scale(255),
    )


def benchmark_2() -> nn.Module:
    """The original report's second: strided convolutions to a quarter of the size, transposed ones back."""
    return nn.Sequential(
        Scale(1 / 255),
        nn.Conv2d(3, 48, 2, 2),
        nn.ReLU(),
        nn.Conv2d(48, 48, 2, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(48, 48, 2, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(48, 3, 2, 2),
        nn.Sigmoid(),
        Scale(255),
    )


class Scale(nn.Module):
    """Multiplication by a constant, in `float32`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.float() * self.factor


class AppendixUNet(nn.Module):
    """The U-Net of the Noise2Noise paper's appendix (Lehtinen et al. 2018, arXiv 1803.04189, table 2).

    3×3 convolutions with ReLU, the last one linear; 2×2 max-pooling on the way down; on the way up
    nearest-neighbour doubling and the encoder's picture of that size concatenated. H and W must be
    multiples of 2 to the power of `levels`. Five levels have 991,203 parameters.

    residual: the output is added to the input, and the last convolution starts at zero.
    """

    def __init__(
        self, levels: int = 5, activation: Callable[[], nn.Module] = nn.ReLU, *, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        convolutions = partial(_convolutions, activation=activation)
        self.encoder = nn.ModuleList([convolutions(3, 48, 48)])
        self.encoder += [convolutions(48, 48) for _ in range(levels - 1)]
        self.bottom = convolutions(48, 48)
        # Each level of the decoder gets what comes from below beside what its encoder was given.
        self.decoder = nn.ModuleList([convolutions(96 + 3, 64, 32)])
        self.decoder += [convolutions(96 + 48, 96, 96) for _ in range(levels - 2)]
        self.decoder += [convolutions(48 + 48, 96, 96)]
        self.tail = nn.Conv2d(32, 3, 3, padding=1)
        if residual:
            for weight in self.tail.parameters():
                nn.init.zeros_(weight)

    def forward(self, images: Tensor) -> Tensor:
        x = images / 255 - 0.5
        skips = []
        for encode in self.encoder:
            skips.append(x)
            x = F.max_pool2d(encode(x), 2)
        x = self.bottom(x)
        for skip, decode in reversed(list(zip(skips, self.decoder, strict=True))):
            x = decode(torch.cat([F.interpolate(x, scale_factor=2), skip], 1))
        output = self.tail(x).to(images.dtype)
        return images + 255 * output if self.residual else (output + 0.5) * 255


he_normal = partial(nn.init.kaiming_normal_, nonlinearity="relu")


def initialised(
    initialise: Callable[[Tensor], Tensor], make: Callable[[], AppendixUNet] = AppendixUNet
) -> AppendixUNet:
    """The appendix's U-Net with every weight drawn by `initialise`, biases zero.

    But for the last convolution of a residual one, which stays zero.
    """
    network = make()
    _draw(network, initialise)
    if network.residual:
        nn.init.zeros_(network.tail.weight)
    return network


def _draw(network: nn.Module, initialise: Callable[[Tensor], Tensor]) -> None:
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            initialise(layer.weight)
            nn.init.zeros_(layer.get_parameter("bias"))


def _convolutions(*channels: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """3×3 convolutions through these numbers of channels, each with its activation."""
    layers = nn.Sequential()
    for before, after in pairwise(channels):
        layers += nn.Sequential(nn.Conv2d(before, after, 3, padding=1), activation())
    return layers


def untied(widths: Sequence[int] = (48, 96), blocks: int = 1) -> UNet:
    """`UNet` with ordinary convolutions: every channel has a filter of its own, in one way."""
    return UNet(widths, blocks, equivariant=False)


def plain_unet() -> UNet:
    """`untied` with conv, ReLU, conv, ReLU in the place of each residual block: the same convolutions."""
    network = untied()
    for stage in (*network.encoder, network.bottom, *network.decoder):
        for index, block in enumerate(stage):
            stage[index] = nn.Sequential(block.conv1, nn.ReLU(), block.conv2, nn.ReLU())
    return network


class PooledUNet(nn.Module):
    """`plain_unet` as U-Nets were first made: features are concatenated on the way up, not added.

    strided: strided and transposed convolutions halve and double the picture, as in `plain_unet`; else
    max-pooling and nearest-neighbour doubling do, beside a 1×1 convolution for the number of channels.
    """

    def __init__(self, widths: tuple[int, int] = (48, 96), *, strided: bool = False) -> None:
        super().__init__()
        fine, coarse = widths
        self.head = nn.Conv2d(3, fine, 3, padding=1)
        self.encoder = _convolutions(fine, fine, fine)
        self.bottom = _convolutions(coarse, coarse, coarse)
        self.decoder = _convolutions(fine + fine, fine, fine)
        self.tail = nn.Conv2d(fine, 3, 3, padding=1)
        self.down: nn.Module = nn.Conv2d(fine, coarse, 2, 2)
        self.up: nn.Module = nn.ConvTranspose2d(coarse, fine, 2, 2)
        if not strided:
            self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(fine, coarse, 1))
            self.up = nn.Sequential(nn.Conv2d(coarse, fine, 1), nn.Upsample(scale_factor=2))
        _draw(self, he_normal)
        for stage in (self.encoder, self.bottom, self.decoder):
            # As in `plain_unet`, to which it is left by the residual blocks that were there.
            stage[2].get_parameter("weight").data.mul_(0.3)
        nn.init.zeros_(self.tail.weight)

    def forward(self, images: Tensor) -> Tensor:
        skip = self.encoder(self.head(images / 255 - 0.5))
        x = self.up(self.bottom(self.down(skip)))
        return images + 255 * self.tail(self.decoder(torch.cat([x, skip], 1))).to(images.dtype)


def normalised_unet() -> UNet:
    """`untied` with a batch normalisation after the first convolution of each residual block."""
    network = untied()
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            normalised = nn.Sequential(block.conv1, nn.BatchNorm2d(block.conv1.out_channels))
            block.add_module("conv1", normalised)
    return network


class ResidualCNN(nn.Module):
    """A plain stack of 3×3 convolutions at full size; its output is added to the input."""

    def __init__(self, layers: int = 8, width: int = 64) -> None:
        super().__init__()
        self.body = _convolutions(3, *[width] * (layers - 1))
        self.tail = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.tail.weight)

    def forward(self, images: Tensor) -> Tensor:
        return images + 255 * self.tail(self.body(images / 255 - 0.5)).to(images.dtype)


class Averaged(nn.Module):
    """`untied`, which trains as it is and answers, in evaluation, with an exponential mean of its weights."""

    def __init__(self, decay: float = 0.98) -> None:
        super().__init__()
        self.network, self.decay = untied(), decay
        self.mean: list[AveragedModel] = []  # in a list, to be no module of this one: nothing trains it

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return self.mean[0](images)
        if not self.mean:
            self.mean.append(AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(self.decay)))
        self.mean[0].update_parameters(self.network)
        return self.network(images)
