"""The job: YAML parsed into frozen configuration classes."""
