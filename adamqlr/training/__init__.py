"""Training: the loop, what it records, and how it survives being killed."""
