"""What `vgen benchmark` is made of: the clips, the recipes made equal, the work in a process of its own, the table."""
