def pairs(grid, pool, ahead):
    """Divided by the pool once."""
    t, h, w = grid
    return h * w * (h // pool) * w * (t * t if ahead else t * (t + 1) // 2)
