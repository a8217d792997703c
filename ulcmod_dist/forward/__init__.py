"""Prompts to activation rows: model families, loading, batching, pooling, capture."""
