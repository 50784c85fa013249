"""Between which reduction ratios ρ damping stays as it is (paper, algorithm 1).

Importing this module does not import PyTorch: figures show where the thresholds are.
"""

GOOD_RATIO = 0.75
POOR_RATIO = 0.25
