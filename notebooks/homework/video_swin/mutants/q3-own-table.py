def table_index(window, full):
    """The place in a table of the small window."""
    at = torch.cartesian_prod(*map(torch.arange, window)).T
    index = 0
    for place, size in zip(at, window):
        index = index * (2 * size - 1) + place[:, None] - place + size - 1
    return index
