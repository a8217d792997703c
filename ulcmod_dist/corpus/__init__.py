"""Prompts and where they come from: readers, the category map, the shard plan."""
