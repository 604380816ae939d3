"""Shows a run in TensorBoard, Weights & Biases and MLflow, beside its own files."""
