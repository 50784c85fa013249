"""Names that files and groups of a study have, whatever its configuration."""

# Beside the suites, groups of cubes of the sensitivity studies and of the searches' trials.
SENSITIVITY, TUNING = "sensitivity", "tuning"
CONFIG_NAME = "config.yaml"
# The file beside shards' outputs through which they share what they found.
JOURNAL = ".journal"
