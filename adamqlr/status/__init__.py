"""How far a study is, told from its files alone: nothing here writes, locks or asks a cluster."""
