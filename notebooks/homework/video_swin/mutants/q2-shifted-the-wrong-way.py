def in_windows(attend, x, window, shift):
    """Windows begin later, not earlier."""
    grid = x.shape[1:4]
    found = torch.zeros_like(x)
    groups = {}
    number = [
        [(i + step) // size if n > size else 0 for i in range(n)]
        for n, size, step in zip(grid, window, shift)
    ]
    for i, t in enumerate(number[0]):
        for j, h in enumerate(number[1]):
            for k, w in enumerate(number[2]):
                groups.setdefault((t, h, w), []).append((i, j, k))
    for members in groups.values():
        i, j, k = torch.tensor(members).T
        found[:, i, j, k] = attend(x[:, i, j, k])
    return found
