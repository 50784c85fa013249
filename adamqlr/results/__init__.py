"""Result files: run files, cubes, the study, statistics over seeds, and where results come from."""
