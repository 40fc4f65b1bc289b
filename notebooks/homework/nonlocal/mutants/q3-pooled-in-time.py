def pairs(grid, pool, ahead):
    """Keys are pooled over frames, too."""
    t, h, w = grid
    keys = (h // pool) * (w // pool)
    frames = t * (t // pool) if ahead else t * (t + 1) // 2 // pool
    return h * w * keys * frames
