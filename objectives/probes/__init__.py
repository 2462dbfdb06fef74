"""Heads that score a selection on a bank."""

from .ridge import RidgeHead, RidgeProbe, Score

__all__ = ["RidgeHead", "RidgeProbe", "Score"]
