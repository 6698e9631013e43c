"""What a training imports only once it needs it: a script that forks imports it before, once for all of its processes."""

from importlib import import_module

TAKES_SECONDS = ("transformers.models.bert.modeling_bert", "accelerate", "sklearn.metrics", "torch.utils.tensorboard")


def import_before_fork() -> None:
    """Import it. Nothing is computed, so no thread is lost in a fork."""
    for name in TAKES_SECONDS:
        import_module(name)
