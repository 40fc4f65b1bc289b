def scales(clip, cube, strides, dim):
    """The width doubles, whatever the stride."""
    grid = [-(-n // s) for n, s in zip(clip, cube)]
    found = [(1 + grid[0] * grid[1] * grid[2], dim)]
    for t, h, w in strides:
        grid = [-(-n // s) for n, s in zip(grid, (t, h, w))]
        dim = dim * 2
        found.append((1 + grid[0] * grid[1] * grid[2], dim))
    return found
