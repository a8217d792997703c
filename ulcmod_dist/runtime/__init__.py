"""What every command runs on: run directory, lease, progress, signals, Ray session."""
