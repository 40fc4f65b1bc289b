def pairs(grid, pool, ahead):
    """Windows that are cut off count."""
    t, h, w = grid
    keys = -(-h // pool) * -(-w // pool)
    return h * w * keys * (t * t if ahead else t * (t + 1) // 2)
