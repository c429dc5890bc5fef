"""Faults planted on every floor above the core, each caught by a check that is in the suite."""
