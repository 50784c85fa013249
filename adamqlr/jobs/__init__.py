"""How a job survives being stopped, and where it computes."""
