def pairs(grid, pool, ahead):
    """Only frames before the own one."""
    t, h, w = grid
    keys = (h // pool) * (w // pool)
    return h * w * keys * (t * t if ahead else t * (t - 1) // 2)
