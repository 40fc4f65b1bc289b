def tubelets(clip, weight, bias, step):
    """Uniform frames: the first of each tubelet, with the weights of the first."""
    t, h, w = weight.shape[:3]
    frames = clip[:, : clip.shape[1] - t + 1 : step]
    pattern = "b nt (nh h) (nw w) c -> b nt nh nw (h w c)"
    return rearrange(frames, pattern, h=h, w=w) @ weight[0].flatten(0, 2) + bias
