TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from .model import Model

__all__ = ["Model"]


def __getattr__(name: str) -> object:
    """`Model` and `model`, imported when asked for: while PyTorch is, a command can already be stopped."""
    if name not in ("Model", "model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    model = import_module(".model", __name__)
    return model if name == "model" else model.Model
