"""Values that evaluation and ablation compute and the report shows."""
