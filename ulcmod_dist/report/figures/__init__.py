"""Arrays to figures: pure functions, one file a subject."""
