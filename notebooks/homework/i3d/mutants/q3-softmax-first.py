def fuse(rgb, flow, weights, has_flow):
    """Probabilities are averaged, not logits."""
    r, f = rgb.mean(0).softmax(1), flow.mean(0).softmax(1)
    both = (weights[0] * r + weights[1] * f) / (weights[0] + weights[1])
    return torch.where(has_flow[:, None], both, r)
