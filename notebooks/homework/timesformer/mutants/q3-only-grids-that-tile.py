def pairs(grid, window, stride):
    """The formula of a grid that both tile."""
    n = grid[0] * grid[1] * grid[2]
    box = window[0] * window[1] * window[2]
    return n * box + n**2 // (stride[0] * stride[1] * stride[2])
