"""What is computed: the graph, tracing, the model zoo, integer arithmetic and quantization."""
