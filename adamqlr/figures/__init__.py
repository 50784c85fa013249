"""The paper's figures, from the study's cubes."""
