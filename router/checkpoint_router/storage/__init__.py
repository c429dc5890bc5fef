"""Floor 1: the storage port, what backends share, and memory as the executable specification."""
