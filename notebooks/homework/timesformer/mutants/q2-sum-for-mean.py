def class_token(space, time, x, cls, frames):
    """The answers of the frames are added up."""
    found = []
    for clip, token, n in zip(x, cls, frames):
        z = space_first(space, time, clip[None, :n])
        patches = rearrange(z, "1 t h w d -> t (h w) d")
        visits = token.expand(n, 1, -1)
        heard = space(torch.cat([visits, patches], dim=1))[:, :1]
        found.append(token + heard.sum(0))
    return torch.stack(found)
