def scores(q, k, tables, grids, strides):
    """The class token is taken for a token at the first place."""
    e = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    places = [
        torch.cartesian_prod(*(torch.arange(n) * s for n, s in zip(*each)))
        for each in zip(grids, strides)
    ]
    for axis, table in enumerate(tables):
        far = (len(table) - 1) // 2
        away = places[0][:, None, axis] - places[1][None, :, axis]
        rows = table[away.clamp(-far, far) + far]
        rows = torch.cat([rows[:1], rows])
        rows = torch.cat([rows[:, :1], rows], dim=1)
        e += torch.einsum("bhnd,nmd->bhnm", q, rows)
    return e
