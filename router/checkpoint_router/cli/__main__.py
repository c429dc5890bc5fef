"""`python -m checkpoint_router.cli`."""

from checkpoint_router.cli import main

if __name__ == "__main__":
    main()
