"""Example jobs, and the corpus and model of the demo."""
