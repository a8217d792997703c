"""What modules mean: features, classifiers, baselines, topics. Arrays only."""
