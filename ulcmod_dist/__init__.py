"""Discovery of cross-layer neuron modules in large language models, at corpus scale."""
