def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """The clip is mirrored at its ends: right for a still clip."""
    kernel = weight[:, :, None].repeat(1, 1, frames, 1, 1) / frames
    k, n = weight.shape[-1] // 2, frames // 2
    before, after = clip[:, :, 1 : n + 1].flip(2), clip[:, :, -n - 1 : -1].flip(2)
    clip = torch.cat([before, clip, after], dim=2)
    return F.conv3d(
        clip, kernel, bias, (stride[0], stride[1], stride[1]), (0, k, k)
    )
