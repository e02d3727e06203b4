"""The `vgen` command."""
