"""Ablating modules in a live model and the loss it costs."""
