def pool_first(x, grid, kernels, strides, maps, heads):
    """Maps, then pools, as in the lesson."""
    t, h, w = grid
    found = []
    for i in range(3):
        side, step = kernels[i].shape[-1] // 2, tuple(strides[min(i, 1)])
        mapped = x @ maps[i]
        z = mapped[:, 1:].transpose(1, 2).unflatten(2, (t, h, w))
        y = F.conv3d(z, kernels[i], stride=step, padding=side, groups=x.shape[2])
        y = torch.cat([mapped[:, :1], y.flatten(2).transpose(1, 2)], dim=1)
        found.append(y.unflatten(2, (heads, -1)).transpose(1, 2))
    q, k, v = found
    products = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    y = products.softmax(dim=-1) @ v
    y[:, :, 1:] += q[:, :, 1:]
    return y.transpose(1, 2).flatten(2)
