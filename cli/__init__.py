"""The `securetune` command line."""
