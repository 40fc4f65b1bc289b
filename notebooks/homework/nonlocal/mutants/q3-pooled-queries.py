def pairs(grid, pool, ahead):
    """Queries are pooled, and keys as well."""
    t, h, w = grid
    places = (h // pool) * (w // pool)
    return places**2 * (t * t if ahead else t * (t + 1) // 2)
