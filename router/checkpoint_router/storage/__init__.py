"""Floor 1: the storage port, what every backend shares, and memory as the executable specification."""
