"""Jobs that ship with the project, and the demo's corpus and model."""
