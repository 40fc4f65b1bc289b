def pool_first(x, grid, kernels, strides, maps, heads):
    """The greatest number of a box."""
    t, h, w = grid
    cls, z = x[:, :1], x[:, 1:].transpose(1, 2).unflatten(2, (t, h, w))
    found = []
    for i in range(3):
        side, step = kernels[i].shape[-1] // 2, tuple(strides[min(i, 1)])
        y = F.max_pool3d(z, kernels[i].shape[-1], step, side)
        y = torch.cat([cls, y.flatten(2).transpose(1, 2)], dim=1) @ maps[i]
        found.append(y.unflatten(2, (heads, -1)).transpose(1, 2))
    q, k, v = found
    products = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    y = products.softmax(dim=-1) @ v
    y[:, :, 1:] += q[:, :, 1:]
    return y.transpose(1, 2).flatten(2)
