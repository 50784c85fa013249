"""The paper's tables, from the study's cubes."""
