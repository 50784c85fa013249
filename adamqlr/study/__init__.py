"""What a study is, without PyTorch: its configuration, datasets, optimizers and cases, and where its files lie."""
