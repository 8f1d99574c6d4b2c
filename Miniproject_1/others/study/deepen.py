"""A network of one level more that begins with what a trained one has learnt."""

from pathlib import Path

import torch
from torch import nn

from ...model import Model, UNet


def deepen(weights: Path, out: Path) -> None:
    """Write to `out` a network of one level more, of twice the channels, that has learnt as much.

    weights: what `Model.save` wrote. Its coarsest level becomes the encoder of the second coarsest. What is
    new adds nothing yet: the up-sampling and the last convolution of each residual block of the new decoder
    start at zero (as Chen et al. 2016, arXiv 1511.05641, begin a deeper network with the answers of a
    shallow one). So answers are the same where H and W are multiples of the new network's stride.
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
