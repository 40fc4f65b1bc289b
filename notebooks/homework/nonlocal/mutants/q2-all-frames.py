def dot_product_block(x, theta, phi, g, out):
    """The block of the lesson."""
    rows = x.flatten(2).transpose(1, 2)
    f = (rows @ theta.T) @ (rows @ phi.T).transpose(1, 2) / rows.shape[1]
    return x + (f @ (rows @ g.T) @ out.T).transpose(1, 2).reshape(x.shape)
