def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """Repeated along height; what was height becomes time."""
    kernel = weight[:, :, :, None].repeat(1, 1, 1, frames, 1) / frames
    before, k = weight.shape[-1] // 2, weight.shape[-1] // 2
    clip = F.pad(clip, (0, 0, 0, 0, before, before), mode="replicate")
    padding = (0, frames // 2, k)
    return F.conv3d(clip, kernel, bias, (stride[0], stride[1], stride[1]), padding)
