def table_index(window, full):
    """The part of the whole index that belongs to the first tokens, as released."""
    at = torch.cartesian_prod(*map(torch.arange, full)).T
    index = 0
    for place, size in zip(at, full):
        index = index * (2 * size - 1) + place[:, None] - place + size - 1
    n = window[0] * window[1] * window[2]
    return index[:n, :n]
