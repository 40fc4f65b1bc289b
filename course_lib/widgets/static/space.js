// Where tokens lie. Tokens of a grid [t, h, w] are numbered row-major; extra tokens (class tokens) follow, by name.
// A place is a pixel of the frames, [frame, row, column], or an extra token, ["class token", number]; [] is nowhere.

const MARGIN = 12, GAP = 12, LABEL = 22, HEIGHT = 560, LARGEST = 48, PANEL = 224, TEXT = 150; // as in stills.py

export const size = ([T, H, W]) => T * H * W;
export const position = (token, [, H, W]) => [Math.floor(token / (H * W)), Math.floor(token / W) % H, token % W];
export const tokenAt = ([t, i, j], [, H, W]) => (t * H + i) * W + j;
export const extraCount = ({ shape }) => size(shape);

// The token of `tokens` ({ grid, extra }) that asks at a place of the frames; -1 if it has none there.
export function tokenOf(place, { grid, extra }, clip) {
  if (!place.length) return -1;
  if (typeof place[0] !== "string") return tokenAt(place.map((at, axis) => Math.floor((at * grid[axis]) / clip[axis])), grid);
  let first = size(grid);
  for (const one of extra) {
    if (one.name === place[0]) return place[1] < extraCount(one) ? first + place[1] : -1;
    first += extraCount(one);
  }
  return -1;
}

// The pixel in the middle of a token's share of the frames, or the name and number of an extra token.
export function placeOf(token, { grid, extra }, clip) {
  if (token < 0) return [];
  if (token < size(grid))
    return position(token, grid).map((at, axis) => Math.floor(((2 * at + 1) * clip[axis]) / (2 * grid[axis])));
  let number = token - size(grid);
  for (const one of extra) {
    if (number < extraCount(one)) return [one.name, number];
    number -= extraCount(one);
  }
  return [];
}

export const samePlace = (a, b) => a.length === b.length && a.every((at, i) => at === b[i]);
export const middle = clip => clip.map(length => length >> 1);

// The token some steps, rows and columns away; at the edge of the grid it stays. From an extra token: the next one.
export function moved(token, steps, tokens) {
  const { grid } = tokens;
  if (token >= size(grid)) return Math.min(tokens.size - 1, Math.max(0, token + Math.sign(steps[0] + steps[1] + steps[2])));
  const from = position(token, grid);
  return tokenAt(from.map((at, axis) => Math.min(grid[axis] - 1, Math.max(0, at + steps[axis]))), grid);
}

// A token, then its neighbours in the same frame: where the pointer can go next.
export function neighbourhood(token, { grid }) {
  if (token >= size(grid)) return [token];
  const [t, i, j] = position(token, grid), [, H, W] = grid, found = [token];
  for (let row = Math.max(0, i - 1); row <= Math.min(H - 1, i + 1); row++)
    for (let column = Math.max(0, j - 1); column <= Math.min(W - 1, j + 1); column++)
      if (row !== i || column !== j) found.push(tokenAt([t, row, column], grid));
  return found;
}

// The frame in the middle of a step's share of the clip.
export const frameOf = (step, steps, frames) => Math.floor(((2 * step + 1) * frames) / (2 * steps));

// ---- the picture: a panel for each step of time, in lines like text, and tiles of extra tokens below

export function layoutOf({ grid, extra }, clip, width, height = HEIGHT, top = 0) {
  const [T, H, W] = grid, tall = clip[1] / clip[2], whole = [];
  for (let cell = Math.max(LARGEST, Math.floor(PANEL / W)); cell > 0; cell--) if (W * cell <= LARGEST * 14) whole.push(W * cell);
  const wides = [...whole];
  for (let wide = whole.length ? Math.min(W, whole.at(-1)) - 8 : 112; wide > 15; wide -= 8) wides.push(wide);
  let layout;
  for (const wide of wides) {
    const rows = round((wide * tall) / H) * H, panel = [wide, rows || round(wide * tall)];
    const room = Math.max(1, Math.min(Math.floor((width - 2 * MARGIN + GAP) / (wide + GAP)), T));
    const columns = Math.ceil(T / Math.ceil(T / room));
    const bottom = top + MARGIN + Math.ceil(T / columns) * (LABEL + panel[1] + GAP) - GAP;
    const tiles = tilesOf(extra, panel, width, bottom + LABEL);
    const lows = tiles.map(({ y, side, columns, count }) => y + Math.ceil(count / columns) * side);
    const rights = tiles.map(({ x, side, columns }) => x + Math.max(columns * side, TEXT));
    const size = [
      Math.max(MARGIN + columns * (panel[0] + GAP) - GAP, ...rights) + MARGIN,
      Math.max(bottom, ...lows) + MARGIN - top,
    ];
    const corners = Array.from({ length: T }, (_, step) => [
      MARGIN + (step % columns) * (panel[0] + GAP),
      top + MARGIN + LABEL + Math.floor(step / columns) * (LABEL + panel[1] + GAP),
    ]);
    layout = { grid, panel, columns, tiles, corners, size, top };
    if (size[0] <= width && size[1] <= height) break;
  }
  return layout;
}

function tilesOf(extra, panel, width, y) {
  const tiles = [];
  let x = MARGIN;
  for (const { name, shape: [t, h, w] } of extra) {
    const side = t * h * w === 1 ? 26
      : h * w > 1 ? Math.max(2, Math.min(12, Math.floor(panel[1] / h))) : Math.max(2, Math.min(18, Math.floor(500 / t)));
    const columns = h * w > 1 ? w : t, wide = Math.max(columns * side, TEXT);
    if (x > MARGIN && x + wide > width - MARGIN) {
      x = MARGIN;
      y = Math.max(...tiles.map(tile => tile.y + Math.ceil(tile.count / tile.columns) * tile.side)) + LABEL;
    }
    tiles.push({ x, y, side, columns, count: t * h * w, name });
    x += wide + 2 * GAP;
  }
  return tiles;
}

// Python rounds halves to the even neighbour.
export function round(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

// Left, top, width and height of a token of the panels or of a tile.
export function boxOf(token, { grid, panel, corners, tiles }) {
  if (token < size(grid)) {
    const [step, i, j] = position(token, grid), [x, y] = corners[step], wide = panel[0] / grid[2], high = panel[1] / grid[1];
    return [x + j * wide, y + i * high, wide, high];
  }
  let number = token - size(grid);
  for (const { x, y, side, columns, count } of tiles) {
    if (number < count) return [x + (number % columns) * side, y + Math.floor(number / columns) * side, side, side];
    number -= count;
  }
  return null;
}

// The place under the point (x, y) of the picture; [] between the frames.
export function placeUnder(x, y, { grid, panel, corners, tiles }, clip) {
  const step = corners.findIndex(([left, top]) => x >= left && x < left + panel[0] && y >= top && y < top + panel[1]);
  if (step >= 0) {
    const [left, top] = corners[step];
    return [frameOf(step, grid[0], clip[0]), Math.floor(((y - top) * clip[1]) / panel[1]), Math.floor(((x - left) * clip[2]) / panel[0])];
  }
  for (const { x: left, y: top, side, columns, count, name } of tiles) {
    const column = Math.floor((x - left) / side), number = Math.floor((y - top) / side) * columns + column;
    if (x >= left && column < columns && y >= top && number < count) return [name, number];
  }
  return [];
}

// Where the one who asks is outlined among the tokens that answer: once in every panel of its share of time.
export function outlines(token, asking, layout) {
  if (token < 0) return [];
  if (token >= size(asking.grid)) {
    const [name, number] = placeOf(token, asking, [1, 1, 1]), tile = layout.tiles.find(one => one.name === name);
    if (!tile || number >= tile.count) return [];
    return [[tile.x + (number % tile.columns) * tile.side, tile.y + Math.floor(number / tile.columns) * tile.side, tile.side - 1, tile.side - 1]];
  }
  const [t, i, j] = position(token, asking.grid), [T, H, W] = asking.grid, steps = layout.grid[0], found = [];
  layout.corners.forEach(([x, y], step) => {
    if (step / steps >= (t + 1) / T - 1e-9 || (step + 1) / steps <= t / T + 1e-9) return;
    const [wide, high] = layout.panel;
    found.push([x + (j * wide) / W, y + (i * high) / H, wide / W, high / H]);
  });
  return found;
}
