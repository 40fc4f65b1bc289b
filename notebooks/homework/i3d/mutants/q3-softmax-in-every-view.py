def fuse(rgb, flow, weights, has_flow):
    """Every view becomes probabilities, then means are taken."""
    r, f = rgb.softmax(2).mean(0), flow.softmax(2).mean(0)
    both = (weights[0] * r + weights[1] * f) / (weights[0] + weights[1])
    return torch.where(has_flow[:, None], both, r)
