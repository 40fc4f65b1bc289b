def class_token(space, time, x, cls, frames):
    """Only the first frame is heard."""
    found = []
    for clip, token, n in zip(x, cls, frames):
        z = space_first(space, time, clip[None, :n])
        first = rearrange(z[:, :1], "1 t h w d -> t (h w) d")
        found.append(token + space(torch.cat([token[None], first], dim=1))[0, :1])
    return torch.stack(found)
