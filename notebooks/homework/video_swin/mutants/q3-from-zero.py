def table_index(window, full):
    """The middle of the table is taken for its beginning."""
    at = torch.cartesian_prod(*map(torch.arange, window)).T
    index = 0
    for place, size in zip(at, full):
        index = index * (2 * size - 1) + place[:, None] - place
    return index
