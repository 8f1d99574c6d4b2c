"""Whatever tensors come: a correct result or one of the documented errors, and nothing else is touched."""

import copy

import pytest
import torch
from conftest import same_weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import Miniproject_1.model as model_module
from Miniproject_1 import Model
from Miniproject_1.model import LARGEST, UNet

TYPES = (
    torch.uint8,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.bool,
    torch.complex64,
)
LAYOUTS = ("plain", "strided", "expanded", "channels_last", "transposed", "gradient", "infinite")


@st.composite
def tensors(draw):
    """Tensors of any rank near four, any type and any layout; most of them are pictures."""
    if draw(st.integers(0, 9)):
        shape = [draw(st.integers(0, 3)), 3, draw(st.integers(0, 12)), draw(st.integers(0, 12))]
    else:
        shape = draw(st.lists(st.integers(0, 5), max_size=6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.rand(shape, generator=generator) * draw(st.sampled_from((1, 255, 400, -400, 1e7)))
    x = x.to(draw(st.sampled_from(TYPES)))
    layout = draw(st.sampled_from(LAYOUTS))
    if layout == "strided" and x.ndim:
        x = x.repeat_interleave(2, dim=-1)[..., ::2]
    elif layout == "expanded" and x.ndim and 0 not in x.shape:
        x = x.narrow(draw(st.integers(0, x.ndim - 1)), 0, 1).expand_as(x)
    elif layout == "channels_last" and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed" and x.ndim >= 2:
        x = x.transpose(-1, -2)
    elif layout == "gradient" and x.is_floating_point():
        x.requires_grad_()
    elif layout == "infinite" and x.is_floating_point() and x.numel() and x.ndim:
        x = x.index_fill(-1, torch.tensor([0]), draw(st.sampled_from((torch.nan, torch.inf))))
    return x


def are_pictures(x):
    right = x.dtype == torch.uint8 or x.is_floating_point()
    right = right and x.ndim == 4 and x.shape[1] in (1, 3) and 0 not in x.shape[2:]
    return right and bool((x.detach().double().abs() <= LARGEST).all())  # neither NaN nor infinite


def unchanged(x, kept):
    return torch.equal(x.detach().nan_to_num(), kept.nan_to_num())


@pytest.fixture(scope="module")
def model():
    """A small one that does change its pictures."""
    torch.manual_seed(0)
    made = Model()
    made.network = UNet((8, 16)).to(made.device)
    torch.nn.init.normal_(made.network.tail.weight, std=0.05)
    return made


def many(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@many(1_500)
@given(x=tensors())
@pytest.mark.filterwarnings("ignore")
def test_predict_answers_or_refuses(model, x):
    before, kept = copy.deepcopy(model.network.state_dict()), x.detach().clone()
    if are_pictures(x):
        y = model.predict(x)
        assert (y.shape, y.dtype, y.requires_grad) == (x.shape, torch.float32, False)
        assert ((y >= 0) & (y <= 255)).all()
        if len(x):
            alone = model.predict(kept[-1:].contiguous())
            assert (alone - y[-1:]).abs().max() < 1 / 255
    else:
        with pytest.raises((TypeError, ValueError), match="^x: "):
            model.predict(x)
    assert unchanged(x, kept)
    assert same_weights(model.network, before)


@many(500)
@given(
    a=tensors(),
    b=st.one_of(st.none(), tensors()),
    epochs=st.sampled_from((1, 1, 1, 2, 0, -1, True, 1.0, "1")),
)
@pytest.mark.filterwarnings("ignore")
def test_train_learns_or_refuses(model, a, b, epochs):
    b = a.detach().flip(0) if b is None else b
    before, kept = copy.deepcopy(model.network.state_dict()), (a.detach().clone(), b.detach().clone())
    good = are_pictures(a) and are_pictures(b) and a.shape == b.shape and len(a) > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "tqdm", None)
        if good and type(epochs) is int and epochs > 0:
            model.train(a, b, epochs)
            assert not same_weights(model.network, before)
            assert all(each.isfinite().all() for each in model.network.parameters())
            model.network.load_state_dict(before)
        else:
            with pytest.raises((TypeError, ValueError), match="^(noisy_a|noisy_b|epochs)"):
                model.train(a, b, epochs)
    assert same_weights(model.network, before)
    assert unchanged(a, kept[0]) and unchanged(b, kept[1])
