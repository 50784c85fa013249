"""How fast a training step is, against PyTorch's own fused Adam and against the device's limits.

    python -m tests.benchmarks --help

All inputs are synthetic. What is compared is measured side by side in one run.
"""
