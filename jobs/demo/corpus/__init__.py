"""Generators of the demo corpus: prompts with answers in the seven categories of the paper."""

from .base import Pair
from .splits import CATEGORIES, TEST_COUNT, TRAIN_COUNT, Splits, generate

__all__ = ["CATEGORIES", "TEST_COUNT", "TRAIN_COUNT", "Pair", "Splits", "generate"]
