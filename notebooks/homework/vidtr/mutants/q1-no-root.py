def listening(z, row, column, project, heads):
    """The products are not divided by the root of d."""
    b, t, n, _ = z.shape
    grid = z.new_empty(b, t + 1, n + 1, z.shape[-1])
    grid[:, 1:, 1:], grid[:, 0], grid[:, 1:, 0] = z, row, column
    given = rearrange(
        project(grid), "b t n (qkv head d) -> qkv b head t n d", qkv=3, head=heads
    )
    patch = torch.zeros(t + 1, n + 1).bool()
    patch[1:, 1:] = True

    def mixed(q, k, v, patch):
        weights = q @ k.mT
        hidden = patch.unsqueeze(-1) & ~patch.unsqueeze(-2)
        return weights.masked_fill(hidden, -torch.inf).softmax(-1) @ v

    q, k, v = given
    v = mixed(q, k, v, patch)
    q, k, v = q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3)
    v = mixed(q, k, v, patch.mT)
    return rearrange(v, "b head n t d -> b t n (head d)")
