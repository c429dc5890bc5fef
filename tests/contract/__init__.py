"""What the storage port promises, asked of every backend alike."""
