"""The paper's claims, as statements that cubes support or refute."""
