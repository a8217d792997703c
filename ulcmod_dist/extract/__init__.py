"""Extraction with Ray: planner, workers, pool, driver."""
