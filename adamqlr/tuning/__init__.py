"""Tuning: asynchronous successive halving over configurations that are drawn once and shared by shards."""
