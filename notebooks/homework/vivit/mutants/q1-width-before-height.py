def tubelets(clip, weight, bias, step):
    """The columns of a frame are counted before its rows."""
    t, h, w = weight.shape[:3]
    boxes = clip.unfold(1, t, step)
    pattern = "b nt (nh h) (nw w) c t -> b nt nh nw (t w h c)"
    return rearrange(boxes, pattern, h=h, w=w) @ weight.flatten(0, 3) + bias
