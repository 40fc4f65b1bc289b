def fuse(rgb, flow, weights, has_flow):
    """Flow is used for every clip."""
    r, f = rgb.mean(0), flow.mean(0)
    return ((weights[0] * r + weights[1] * f) / (weights[0] + weights[1])).softmax(
        1
    )
