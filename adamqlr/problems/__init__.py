"""Problems: what is being optimized. Datasets, their splits and batches, models and losses."""
