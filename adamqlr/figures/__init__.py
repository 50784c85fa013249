"""The paper's figures and tables, from the study's cubes."""
