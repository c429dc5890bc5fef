"""The command line: drawings from made-up trees, and real processes against a real router."""
