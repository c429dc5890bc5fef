"""Floor 2: one package per engine. None imports another; `storage.open` finds them by scheme."""
