def fuse(rgb, flow, weights, has_flow):
    """Missing flow counts as logits of zero."""
    r, f = rgb.mean(0), flow.mean(0) * has_flow[:, None]
    return ((weights[0] * r + weights[1] * f) / (weights[0] + weights[1])).softmax(
        1
    )
