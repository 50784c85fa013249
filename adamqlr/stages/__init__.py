"""The stages of the study as plain functions on files; the command line calls nothing else."""
