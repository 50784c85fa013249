"""What a study is, without PyTorch: the optimizers that it compares."""
