// Drawing: grey frames under colours. Every token is a pixel (or a few, for stripes) of a small texture that is
// stretched over its panel; single pixels of the clip are drawn as rectangles.

const NARROW = 44; // pixels that "t = 15" takes
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
export const hexToRgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
export const pack = (red, green, blue, opacity) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// Where several parts meet in a patch it is striped; with this many stripes every part gets an equal share.
export const stripesFor = many => Array.from({ length: many }, (_, i) => i + 1).reduce((a, b) => {
  let multiple = a;
  while (multiple % b) multiple += a;
  return multiple;
}, 1);

// One colour (packed, 0 for none) for each stripe of each token, into `pixels`, from masks with a colour each.
export function paintMasks(pixels, masks, stripes) {
  const inside = new Uint32Array(masks.length), tokens = pixels.length / stripes;
  for (let i = 0; i < tokens; i++) {
    let many = 0;
    for (const { mask, packed } of masks) if (mask[i]) inside[many++] = packed;
    for (let k = 0; k < stripes; k++) pixels[i * stripes + k] = many ? inside[Math.floor((k * many) / stripes)] : 0;
  }
}
// By how many layers a token lies back: the colour of that layer.
export function paintSteps(pixels, steps, packed, stripes) {
  for (let i = 0; i < steps.length; i++) pixels.fill(steps[i] ? packed[steps[i] - 1] : 0, i * stripes, (i + 1) * stripes);
}
// Shares: a veil up to the equal share, from there ever brighter. Affinities: from zero, with a colour for each sign.
export function paintWeights(pixels, { weights, may, most, uniform }, { heat, veil, negative, signed }, stripes) {
  const room = signed ? most : most - uniform;
  for (let i = 0; i < weights.length; i++) {
    let colour = 0;
    if (may[i] && signed) {
      const level = most > 0 ? Math.round((255 * Math.abs(weights[i])) / most) : 0;
      colour = weights[i] < 0 ? (negative & 0xffffff) | (Math.round(level * 0.9) << 24) : heat[level];
    } else if (may[i])
      colour = weights[i] <= uniform * 1.0001 || room <= 0 ? veil : heat[Math.round((255 * (weights[i] - uniform)) / room)];
    pixels.fill(colour >>> 0, i * stripes, (i + 1) * stripes);
  }
}

// A sheet for one source: `layout` says where, `stripes` how fine. draw(...) paints it into `pen`, the canvas' own.
export function sheet(layout, clip, picture, colours, scale, width) {
  const { grid: [T, H, W], panel: [wide, high], corners, tiles, size: [, height], top } = layout;
  const surface = () => {
    const canvas = new OffscreenCanvas(width * scale, height * scale), pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.translate(0, -top);
    return { canvas, pen };
  };
  const plain = surface(), grey = surface();
  plain.pen.fillStyle = colours.background;
  plain.pen.fillRect(0, top, width, height);
  const each = picture.height / clip[0];
  plain.pen.imageSmoothingEnabled = picture.width >= wide * scale;
  const cell = Math.min(wide / W, high / H);
  const caption = (pen, text, x, y, ink = "#b6c2cf", weight = 400) => {
    pen.font = `${weight} 13px system-ui, sans-serif`;
    pen.fillStyle = colours.background;
    pen.fillRect(x, y - 20, Math.max(wide, pen.measureText(text).width), 18);
    pen.fillStyle = ink;
    pen.fillText(text, x, y - 6, Math.max(wide, TEXT));
  };
  const told = wide < NARROW ? "" : "t = "; // beside each other in small panels, numbers alone have room
  const label = (pen, step, ink, weight) => caption(pen, `${told}${frameOf(step, T, clip[0])}`, ...corners[step], ink, weight);
  corners.forEach(([x, y], step) => {
    const frame = frameOf(step, T, clip[0]);
    plain.pen.drawImage(picture, 0, frame * each, picture.width, each, x, y, wide, high);
    label(plain.pen, step);
  });
  for (const { x, y, side, columns, count, name } of tiles) {
    caption(plain.pen, name, x, y);
    plain.pen.fillStyle = "#39424e";
    for (let i = 0; i < count; i++) plain.pen.fillRect(x + (i % columns) * side, y + Math.floor(i / columns) * side, side - 1, side - 1);
  }
  grey.pen.drawImage(plain.canvas, 0, top, width, height);
  corners.forEach(([x, y]) => {
    const part = plain.pen.getImageData(x * scale, (y - top) * scale, wide * scale, high * scale), { data } = part;
    for (let i = 0; i < data.length; i += 4)
      data[i] = data[i + 1] = data[i + 2] = colours.dark + colours.dim * (0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2]);
    grey.pen.putImageData(part, x * scale, (y - top) * scale);
  });
  const lines = surface();
  lines.pen.fillStyle = "rgb(0 0 0 / 22%)";
  if (cell >= 8) corners.forEach(([x, y]) => {
    for (let i = 1; i < H; i++) lines.pen.fillRect(x, y + (i * high) / H - 1, wide, 1);
    for (let j = 1; j < W; j++) lines.pen.fillRect(x + (j * wide) / W - 1, y, 1, high);
  });
  let texture = null;

  function outline(pen, [x, y, w, h], dash) {
    const thick = Math.min(w, h) >= 8 ? 2 : 1;
    pen.setLineDash(dash ? [3, 3] : []);
    pen.lineWidth = thick + 2;
    pen.strokeStyle = dash ? "#000" : colours.query;
    pen.strokeRect(x - 1, y - 1, w + 2, h + 2);
    pen.lineWidth = thick;
    pen.strokeStyle = "#fff";
    pen.strokeRect(x - 0.5, y - 0.5, w + 1, h + 1);
    pen.setLineDash([]);
  }
  // A texture with `stripes` pixels for each token, and its extra tokens behind.
  function prepare(tokens, stripes) {
    if (texture?.stripes === stripes && texture.tokens === tokens) return texture.pixels;
    const canvas = new OffscreenCanvas(W * stripes, T * H), pen = canvas.getContext("2d");
    const image = pen.createImageData(W * stripes, T * H);
    texture = { canvas, pen, image, stripes, tokens, pixels: new Uint32Array(tokens * stripes), own: new Uint32Array(image.data.buffer) };
    return texture.pixels;
  }
  function lay(pen) {
    const { canvas, stripes, pixels, own } = texture;
    own.set(pixels.subarray(0, own.length));
    texture.pen.putImageData(texture.image, 0, 0);
    corners.forEach(([x, y], step) => pen.drawImage(canvas, 0, step * H, W * stripes, H, x, y, wide, high));
    let token = T * H * W;
    for (const { x, y, side, columns, count } of tiles) for (let i = 0; i < count; i++, token++)
      for (let k = 0; k < stripes; k++) {
        const colour = pixels[token * stripes + k], part = (side - 1) / stripes;
        if (!colour) continue;
        pen.fillStyle = `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255} / ${(colour >>> 24) / 255})`;
        pen.fillRect(x + (i % columns) * side + k * part, y + Math.floor(i / columns) * side, part, side - 1);
      }
  }
  // Rectangles of one colour where runs along t, h and w cross.
  function runs(pen, [times, rows, columns], [t, h, w], colour) {
    pen.fillStyle = colour;
    corners.forEach(([x, y], step) => {
      const from = (step * t) / T, to = ((step + 1) * t) / T;
      if (!times.some(([a, b]) => a < to && b > from)) return;
      for (const [a, b] of rows) for (const [c, d] of columns)
        pen.fillRect(x + (c * wide) / w, y + (a * high) / h, ((d - c) * wide) / w, ((b - a) * high) / h);
    });
  }
  // A box around what runs along t, h and w span.
  function frame(pen, [times, rows, columns], [t, h, w]) {
    pen.strokeStyle = "#fff";
    pen.lineWidth = 1;
    corners.forEach(([x, y], step) => {
      if (!times.some(([a, b]) => a < ((step + 1) * t) / T && b > (step * t) / T)) return;
      const [top, bottom] = [rows[0][0], rows.at(-1)[1]].map(at => (at * high) / h);
      const [left, right] = [columns[0][0], columns.at(-1)[1]].map(at => (at * wide) / w);
      pen.strokeRect(x + left + 0.5, y + top + 0.5, right - left - 1, bottom - top - 1);
    });
  }
  const base = (pen, greyed) => pen.drawImage((greyed ? grey : plain).canvas, 0, 0, width * scale, height * scale, 0, top, width, height);
  const grille = pen => cell >= 8 && pen.drawImage(lines.canvas, 0, 0, width * scale, height * scale, 0, top, width, height);
  const marks = (pen, tokens) => tokens.forEach(token => {
    const [x, y, w, h] = boxOf(token, layout);
    pen.fillStyle = "#fff";
    pen.beginPath();
    pen.arc(x + w / 2, y + h / 2, Math.max(1.5, Math.min(w, h) / 6), 0, 7);
    pen.fill();
  });
  return { layout, prepare, lay, runs, frame, base, grille, marks, outline, label, caption };
}
