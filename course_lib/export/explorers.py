from latex2mathml.converter import convert


def mathml(tex, display):
    return convert(tex, display="block" if display else "inline")
