def pairs(grid, pool, ahead):
    """Half of all pairs are taken for those without later frames."""
    t, h, w = grid
    found = t * t * h * w * (h // pool) * (w // pool)
    return found if ahead else found // 2
