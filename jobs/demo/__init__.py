"""The demo: its corpus, the small model trained on it and the scripts that make both."""
