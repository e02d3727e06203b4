"""What `vgen sample` is made of: the clips to generate, their pieces on disk, the work of a rank, the grid of all."""
