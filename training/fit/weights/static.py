"""Fixed weights: `loss_weight` of each task. Tuned, they match what adapts (Kurin et al. 2022, Xin et al. 2022)."""

from .weighting import Weighting


class Static(Weighting):
    """Every loss counts as the recipe says."""
