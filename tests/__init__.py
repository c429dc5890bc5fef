"""Tests, named for behaviours. `tests.builders` makes values for all of them."""
