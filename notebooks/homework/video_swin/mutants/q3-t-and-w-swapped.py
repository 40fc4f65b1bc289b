def table_index(window, full):
    """Time runs fastest in the table."""
    at = torch.cartesian_prod(*map(torch.arange, window)).T
    index = 0
    for place, size in zip(at.flip(0), full[::-1]):
        index = index * (2 * size - 1) + place[:, None] - place + size - 1
    return index
