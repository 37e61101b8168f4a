"""Two processes and a dealer that evaluate a traced model on additive shares, over TCP."""
