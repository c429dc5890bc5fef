"""Floor 4: one router's behaviour, with no transport in sight."""
