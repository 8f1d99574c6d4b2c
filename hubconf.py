"""`torch.hub.load(REPOSITORY, "noise2noise", source="local")`: the denoiser, with its weights."""

dependencies = ["torch"]

from Miniproject_1 import Model  # noqa: E402


def noise2noise(pretrained: bool = True, device: str | None = None) -> Model:
    """The `Model`, with the weights of bestmodel.pth unless `pretrained` is false, on `device`."""
    model = Model(device)
    if pretrained:
        model.load_pretrained_model()
    return model
