def tubelets(clip, weight, bias, step):
    """The rows of a frame are counted before the frames."""
    t, h, w = weight.shape[:3]
    boxes = clip.unfold(1, t, step)
    pattern = "b nt (nh h) (nw w) c t -> b nt nh nw (h t w c)"
    return rearrange(boxes, pattern, h=h, w=w) @ weight.flatten(0, 3) + bias
