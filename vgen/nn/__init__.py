"""Building blocks of the networks: pure torch, no Lightning, no family knowledge."""
