"""Floor 1: generated from `proto/checkpoint_router/v1`. Do not edit; run `make proto`."""
