def gaussian_block(x, theta, phi, g, out):
    """The shares that a key gives, not those that a query takes, add up to 1."""
    t, h, w = x.shape[2:]
    rows = x.flatten(2).transpose(1, 2)
    f = (rows @ theta.T) @ (rows @ phi.T).transpose(1, 2)
    at = torch.arange(t * h * w) // (h * w)
    f = f.masked_fill(at[None] > at[:, None], -torch.inf).softmax(1)
    return x + (f @ (rows @ g.T) @ out.T).transpose(1, 2).reshape(x.shape)
