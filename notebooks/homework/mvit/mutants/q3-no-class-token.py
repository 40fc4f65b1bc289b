def scales(clip, cube, strides, dim):
    """The class token is not counted."""
    grid = [-(-n // s) for n, s in zip(clip, cube)]
    found = [(grid[0] * grid[1] * grid[2], dim)]
    for t, h, w in strides:
        grid = [-(-n // s) for n, s in zip(grid, (t, h, w))]
        dim = dim * round((h * w) ** 0.5)
        found.append((grid[0] * grid[1] * grid[2], dim))
    return found
