def in_windows(attend, x, window, shift):
    """Whatever the roll brought together meets; the filling alone is kept out."""
    grid = x.shape[1:4]
    mask = shift_mask(tuple(grid), tuple(window), tuple(shift))
    shift = [0 if n <= m else s for n, m, s in zip(grid, window, shift)]
    window = [min(n, m) for n, m in zip(grid, window)]
    counts = [-(-n // m) for n, m in zip(grid, window)]
    filled = x.new_zeros(
        len(x), *(n * m for n, m in zip(counts, window)), x.shape[4]
    )
    filled[:, : grid[0], : grid[1], : grid[2]] = x
    y = filled.roll([-s for s in shift], (1, 2, 3))
    cut = [part for pair in zip(counts, window) for part in pair]
    y = y.reshape(len(x), *cut, -1).permute(0, 1, 3, 5, 2, 4, 6, 7)
    shape = y.shape
    here = torch.zeros(filled.shape[1:4]).bool()
    here[: grid[0], : grid[1], : grid[2]] = True
    here = here.roll([-s for s in shift], (0, 1, 2)).reshape(cut)
    here = here.permute(0, 2, 4, 1, 3, 5).reshape(len(mask), 1, -1)
    mask = (mask | here).repeat(len(x), 1, 1)
    y = attend(y.reshape(len(mask), mask.shape[1], -1), mask=mask)
    y = y.reshape(shape).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(filled.shape)
    y = y.roll(shift, (1, 2, 3))
    return y[:, : grid[0], : grid[1], : grid[2]]
