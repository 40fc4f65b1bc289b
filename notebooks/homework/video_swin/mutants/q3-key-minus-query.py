def table_index(window, full):
    """Key minus query."""
    at = torch.cartesian_prod(*map(torch.arange, window)).T
    index = 0
    for place, size in zip(at, full):
        index = index * (2 * size - 1) + place - place[:, None] + size - 1
    return index
