def in_windows(attend, x, window, shift):
    """Zeros take part as keys, as in the released code."""
    grid = x.shape[1:4]
    shift = [0 if n <= m else s for n, m, s in zip(grid, window, shift)]
    window = [min(n, m) for n, m in zip(grid, window)]
    whole = [-(-n // m) * m for n, m in zip(grid, window)]
    filled = x.new_zeros(len(x), *whole, x.shape[4])
    filled[:, : grid[0], : grid[1], : grid[2]] = x
    number = torch.zeros(1, 1, 1, dtype=torch.long)
    for axis, (n, m, s) in enumerate(zip(whole, window, shift)):
        shape = [-1 if axis == i else 1 for i in range(3)]
        number = 100 * number + ((torch.arange(n) + m - s) // m).reshape(shape)
    found = torch.zeros_like(filled)
    for one in number.unique():
        found[:, number == one] = attend(filled[:, number == one])
    return found[:, : grid[0], : grid[1], : grid[2]]
