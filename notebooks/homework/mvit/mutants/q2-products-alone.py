def scores(q, k, tables, grids, strides):
    """No distances."""
    return q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
