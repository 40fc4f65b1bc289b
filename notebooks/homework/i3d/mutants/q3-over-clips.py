def fuse(rgb, flow, weights, has_flow):
    """Softmax over the clips of the batch."""
    r, f = rgb.mean(0), flow.mean(0)
    both = (weights[0] * r + weights[1] * f) / (weights[0] + weights[1])
    return torch.where(has_flow[:, None], both, r).softmax(0)
