def scales(clip, cube, strides, dim):
    """The stride of time counts for the width."""
    grid = [-(-n // s) for n, s in zip(clip, cube)]
    found = [(1 + grid[0] * grid[1] * grid[2], dim)]
    for t, h, w in strides:
        grid = [-(-n // s) for n, s in zip(grid, (t, h, w))]
        dim = dim * round((t * h * w) ** 0.5)
        found.append((1 + grid[0] * grid[1] * grid[2], dim))
    return found
