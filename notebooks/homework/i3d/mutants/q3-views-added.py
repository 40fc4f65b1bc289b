def fuse(rgb, flow, weights, has_flow):
    """The sum over the views, not the mean."""
    r, f = rgb.sum(0), flow.sum(0)
    both = (weights[0] * r + weights[1] * f) / (weights[0] + weights[1])
    return torch.where(has_flow[:, None], both, r).softmax(1)
