"""Larger networks that begin with what a trained one has learnt (Chen et al. 2016, arXiv 1511.05641)."""

from pathlib import Path

import torch
from torch import nn

from ...model import EquivariantConv2d, EquivariantConvTranspose2d, EquivariantToColours, Model, UNet


def deepen(weights: Path, out: Path) -> None:
    """Write to `out` a network of one level more, of twice the channels, that has learnt as much.

    weights: what `Model.save` wrote. Its coarsest level becomes the encoder of the second coarsest. What is
    new adds nothing yet: the up-sampling and the last convolution of each residual block of the new decoder
    start at zero. So answers are the same where H and W are multiples of the new network's stride.
    Raises as `Model.load` and `Model.save` do.
    """
    torch.manual_seed(0)
    model = Model("cpu")
    model.load(weights)
    widths = model.network.shape["widths"]
    deep = UNet(**model.network.shape | {"widths": [*widths, 2 * widths[-1]]})
    encoder = f"encoder.{len(widths) - 1}."
    learnt = {name.replace("bottom.", encoder): value for name, value in model.network.state_dict().items()}
    deep.load_state_dict(deep.state_dict() | learnt)
    nn.init.zeros_(deep.up[-1].get_parameter("weight"))
    for block in deep.decoder[-1].children():
        nn.init.zeros_(block.get_parameter("conv2.weight"))
    model.network = deep
    model.save(out)


def untie(weights: Path, out: Path) -> None:
    """Write to `out` a network of ordinary convolutions that answers as an equivariant one does.

    weights: what `Model.save` wrote. Each channel gets a filter of its own, eight times as many as before,
    which a training from there on may change one by one.
    Raises as `Model.load` and `Model.save` do, and `ValueError` where the network is not equivariant.
    """
    model = Model("cpu")
    model.load(weights)
    if not model.network.shape["equivariant"]:
        raise ValueError(f"{weights} holds a network of ordinary convolutions already")
    ordinary = UNet(**model.network.shape | {"equivariant": False})
    learnt = ordinary.state_dict()  # in which the transposed convolutions' biases are zero
    for name, layer in model.network.named_modules():
        if isinstance(layer, (EquivariantConv2d, EquivariantConvTranspose2d, EquivariantToColours)):
            learnt[f"{name}.weight"], bias = layer.whole()
            if bias is not None:
                learnt[f"{name}.bias"] = bias
    ordinary.load_state_dict(learnt)
    model.network = ordinary
    model.save(out)
