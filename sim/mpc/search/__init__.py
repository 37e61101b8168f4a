"""MPCViT's search: which heads keep a ReLU-softmax, from what they are worth and what they cost."""
