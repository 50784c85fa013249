"""The library: QLR, AdamQLR, K-FAC and the study's baselines; it imports nothing else of the package."""
