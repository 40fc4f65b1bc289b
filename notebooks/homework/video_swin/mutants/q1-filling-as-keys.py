def shift_mask(grid, window, shift):
    """Filling takes part as keys, as in the released code."""
    numbers, order = [], []
    for n, size, step in zip(grid, window, shift):
        if n <= size:
            size, step = n, 0
        place = torch.arange(-(-n // size) * size)
        number = (place + size - step) // size
        numbers.append(number.roll(-step))
        order.append(len(place) // size)
    t, h, w = (number.unflatten(0, (n, -1)) for number, n in zip(numbers, order))
    rows = []
    for i in range(order[0]):
        for j in range(order[1]):
            for k in range(order[2]):
                rows.append(torch.cartesian_prod(t[i], h[j], w[k]))
    rows = torch.stack(rows)
    mask = (rows[:, :, None] == rows[:, None]).all(-1)
    return mask | torch.eye(mask.shape[1]).bool()
