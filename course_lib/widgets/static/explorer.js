// The attention explorer in the browser. Masks arrive as one group number a token and learned weights as one byte
// each, so that everything answers here; only weights too large for the page are asked from the kernel, row by row.
// First what computes, functions of their arguments alone; then what draws; then `render`, which has the state.

const VIEWS = ["one layer", "two layers", "learned"];
const SETTLE = 60; // milliseconds that the pointer rests before the kernel hears of it
const GIVE_UP = 500; // milliseconds to wait for a row before the next one may be asked
const ROWS_KEPT = 256;

// ---- geometry: tokens are numbered row-major in the grid [t, h, w]

export const size = ([T, H, W]) => T * H * W;
export const position = (token, [, H, W]) => [Math.floor(token / (H * W)), Math.floor(token / W) % H, token % W];
export const tokenAt = ([t, i, j], [, H, W]) => (t * H + i) * W + j;
export const middle = grid => tokenAt(grid.map(length => length >> 1), grid);

// The token some frames, rows and columns away; at the edge of the grid it stays.
export function moved(token, steps, grid) {
  const from = position(token, grid);
  return tokenAt(from.map((at, axis) => Math.min(grid[axis] - 1, Math.max(0, at + steps[axis]))), grid);
}

// A token, then its neighbours in the same frame: where the pointer can go next.
export function neighbourhood(token, grid) {
  const [t, i, j] = position(token, grid), [, H, W] = grid, found = [token];
  for (let row = Math.max(0, i - 1); row <= Math.min(H - 1, i + 1); row++)
    for (let column = Math.max(0, j - 1); column <= Math.min(W - 1, j + 1); column++)
      if (row !== i || column !== j) found.push(tokenAt([t, row, column], grid));
  return found;
}

// Left, top and side of a token's patch in the picture; frame t has its left upper corner at corners[t].
export function patchBox(token, grid, { patch, corners }) {
  const [t, i, j] = position(token, grid), [x, y] = corners[t];
  return [x + j * patch, y + i * patch, patch];
}

// The token whose patch holds the point (x, y) of the picture; -1 between the frames.
export function tokenUnder(x, y, grid, { patch, corners }) {
  const [, H, W] = grid;
  const t = corners.findIndex(([left, top]) => x >= left && x < left + W * patch && y >= top && y < top + H * patch);
  if (t < 0) return -1;
  return tokenAt([t, Math.floor((y - corners[t][1]) / patch), Math.floor((x - corners[t][0]) / patch)], grid);
}

// ---- masks: two tokens attend to each other in a layer if their group numbers are equal

export const count = mask => mask.reduce((sum, bit) => sum + bit, 0);

function maskOf(group, holds) {
  const mask = new Uint8Array(group.length);
  for (let i = 0; i < mask.length; i++) mask[i] = holds(group[i]);
  return mask;
}

// The tokens that `query` may attend to in one layer: its row of the attention mask.
export const attended = (group, query) => maskOf(group, number => number === group[query]);

// Through two layers in a row, `last` and the one `before` it: attended by the last, and reached (receptive field).
export function attendedTwice(last, before, query) {
  const direct = attended(last, query), open = new Set(before.filter((_, token) => direct[token]));
  return { direct, reached: maskOf(before, number => open.has(number)) };
}

// The last layer of a block and the one before it; a block with one layer is followed by its like.
export const lastTwo = steps => [steps.at(-1), steps.at(-2) ?? steps.at(-1)];

// Where several layers meet in a patch it is striped; with this many stripes every layer gets an equal share.
export function stripesFor(counts) {
  const leastCommonMultiple = (a, b) => {
    let multiple = a;
    while (multiple % b) multiple += a;
    return multiple;
  };
  return counts.reduce(leastCommonMultiple, 2);
}

// One colour (packed, 0 for none) for each stripe of each token, into `pixels`.
export function paintLayers(pixels, steps, query, stripes) {
  const inside = new Uint32Array(steps.length);
  for (let i = 0; i < pixels.length / stripes; i++) {
    let many = 0;
    for (const { group, packed } of steps) if (group[i] === group[query]) inside[many++] = packed;
    for (let k = 0; k < stripes; k++) pixels[i * stripes + k] = inside[Math.floor((k * many) / stripes)] * (many > 0);
  }
}
export function paintTwoLayers(pixels, [last, before], query, stripes) {
  const { direct, reached } = attendedTwice(last.group, before.group, query);
  for (let i = 0; i < direct.length; i++)
    pixels.fill(direct[i] ? last.packed : reached[i] ? before.packed : 0, i * stripes, (i + 1) * stripes);
}
export function paintWeights(pixels, { members, weights, most }, heat, stripes) {
  pixels.fill(0);
  members.forEach((token, i) => {
    const level = most > 0 ? Math.round((255 * weights[i]) / most) : 0;
    pixels.fill(heat[level], token * stripes, (token + 1) * stripes);
  });
}

// ---- learned weights: levels 0 to 255 and a scale for each row of the softmax

export const bytes = data =>
  data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const typed = (Type, data) => new Type(bytes(data).slice().buffer); // slice: a message's buffers may lie unaligned

// A whole attention map: levels (group, head, query, key), the members of every group, and where each token stands.
export function unpackMap({ members, levels, scales, sums }, heads, tokens) {
  const map = { members: typed(Int32Array, members), levels: bytes(levels), heads, place: new Int32Array(tokens) };
  map.members.forEach((token, i) => (map.place[token] = i));
  [map.scales, map.sums] = [scales, sums].map(data => typed(Float32Array, data));
  map.keys = map.levels.length / heads / tokens;
  return map;
}

// What one query pays in every head: the same four things for one row.
export function rowOfMap({ members, levels, scales, sums, heads, place, keys }, query) {
  const group = Math.floor(place[query] / keys), inside = place[query] % keys;
  const rows = Array.from({ length: heads }, (_, head) => (group * heads + head) * keys + inside);
  return {
    members: members.subarray(group * keys, (group + 1) * keys),
    levels: rows.map(row => levels.subarray(row * keys, (row + 1) * keys)),
    scales: rows.map(row => scales[row]),
    sums: rows.map(row => sums[row]),
  };
}

// The same from the four buffers of a kernel's answer.
export function unpackRow([members, levels, scales, sums]) {
  const keys = members.byteLength / 4, all = bytes(levels).slice();
  return {
    members: typed(Int32Array, members),
    levels: Array.from({ length: all.length / keys }, (_, head) => all.subarray(head * keys, (head + 1) * keys)),
    scales: typed(Float32Array, scales),
    sums: typed(Float32Array, sums),
  };
}

// Weights of one head, or (head -1) the mean of all; `told` writes a weight with no digit finer than a level.
export function weightsOf({ members, levels, scales, sums }, head) {
  const heads = head < 0 ? levels.map((_, i) => i) : [head], weights = new Float32Array(members.length);
  let sum = 0;
  for (const one of heads) {
    const scale = scales[one] / heads.length, level = levels[one];
    for (let i = 0; i < weights.length; i++) weights[i] += scale * level[i];
    sum += sums[one] / heads.length;
  }
  const most = Math.max(...weights), decimals = most > 0 ? Math.floor(-Math.log10(most / 255)) : 2;
  return { members, weights, sum, most, told: weight => weight.toFixed(decimals) };
}

// ---- in words

const place = (token, grid) => {
  const [t, i, j] = position(token, grid);
  return `time ${t}, row ${i}, column ${j}`;
};
const outOf = (found, tokens) => (found === tokens ? `all ${tokens} tokens` : `${found} of ${tokens} tokens`);

// `learned`, in that view: { name, heads, head, row (undefined while the kernel has not answered), late }.
// `steps`: the layers of the scheme; `chosen`: those that are shown.
export function describe({ query, grid, steps, chosen, learned }) {
  if (query < 0) return "Point at a patch, or press an arrow key, to see which patches attention joins it to.";
  const tokens = size(grid), said = [`Patch at ${place(query, grid)}.`];
  if (learned) {
    const { name, heads, head, row, late } = learned;
    const which = `${name}, ${head < 0 ? (heads > 1 ? `mean of ${heads} heads` : "its head") : `head ${head}`}`;
    if (row) {
      const { members, weights, sum, told } = weightsOf(row, head);
      const best = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]).slice(0, 3);
      const strongest = best.map(i => `${told(weights[i])} at ${place(members[i], grid)}`).join("; ");
      said.push(`Strongest in ${which}: ${strongest}.`,
        `In this layer it may attend ${outOf(weights.length, tokens)}; their weights add up to ${sum.toFixed(2)}.`);
    } else if (late) said.push(`The kernel did not answer within ${GIVE_UP / 1000} s (is a cell running?). Enter asks again.`);
    else said.push(`Waiting for the kernel: weights of ${which} …`);
  } else {
    const counts = chosen.map(({ name, group }) => `${outOf(count(attended(group, query)), tokens)} (${name})`);
    said.push(`In one layer it may attend: ${counts.join(", ")}.`);
  }
  if (!steps) return said.join(" ");
  const [last, before] = lastTwo(steps), { reached } = attendedTwice(last.group, before.group, query);
  const order = last === before ? `${last.name} twice` : `${last.name}, and before it ${before.name}`;
  said.push(`Through two layers in a row (${order}) it can depend on ${outOf(count(reached), tokens)}.`);
  return said.join(" ");
}

// ---- drawing

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
export const hexToRgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
export const pack = (red, green, blue, opacity) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// Draws into `canvas`: the plain frames, or grey ones under a veil of one colour for each stripe of each token.
function painter(canvas, grid, geometry, colours, stripes) {
  const [T, H, W] = grid, { patch, size: [width, height], corners } = geometry;
  const scale = Math.min(2, Math.max(1, Math.ceil(window.devicePixelRatio || 1)));
  const sheet = () => {
    const canvas = new OffscreenCanvas(width * scale, height * scale), pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    return { canvas, pen };
  };
  Object.assign(canvas, { width: width * scale, height: height * scale });
  canvas.style.width = `${width}px`;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.imageSmoothingEnabled = false;

  const plain = sheet(), grey = sheet(), lines = sheet();
  // All frames, one below the other: a token is one pixel high and a pixel for every stripe wide.
  const texture = new OffscreenCanvas(W * stripes, T * H), texturePen = texture.getContext("2d");
  const image = texturePen.createImageData(W * stripes, T * H), pixels = new Uint32Array(image.data.buffer);

  function label(pen, t, ink, weight) {
    const [x, y] = corners[t];
    pen.fillStyle = colours.background;
    pen.fillRect(x, y - 20, W * patch, 18);
    pen.fillStyle = ink;
    pen.font = `${weight} 13px system-ui, sans-serif`;
    pen.fillText(`t = ${t}`, x, y - 6);
  }
  // `picture` has all frames, one below the other.
  function prepare(picture) {
    const high = picture.height / T, fine = picture.width >= W * patch * scale;
    plain.pen.fillStyle = colours.background;
    plain.pen.fillRect(0, 0, width, height);
    plain.pen.imageSmoothingEnabled = fine;
    corners.forEach(([x, y], t) => {
      plain.pen.drawImage(picture, 0, t * high, picture.width, high, x, y, W * patch, H * patch);
      label(plain.pen, t, "#b6c2cf", 400);
    });
    grey.pen.drawImage(plain.canvas, 0, 0, width, height);
    corners.forEach(([x, y]) => {
      const part = plain.pen.getImageData(x * scale, y * scale, W * patch * scale, H * patch * scale), { data } = part;
      for (let i = 0; i < data.length; i += 4)
        data[i] = data[i + 1] = data[i + 2] = colours.dark + colours.dim * (0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2]);
      grey.pen.putImageData(part, x * scale, y * scale);
    });
    lines.pen.fillStyle = "rgb(0 0 0 / 22%)";
    if (patch >= 8) corners.forEach(([x, y]) => {
      for (let i = 1; i < H; i++) lines.pen.fillRect(x, y + i * patch - 1, W * patch, 1);
      for (let j = 1; j < W; j++) lines.pen.fillRect(x + j * patch - 1, y, 1, H * patch);
    });
  }
  function outline(token, { dash, fill }) {
    const [x, y] = patchBox(token, grid, geometry), wide = patch >= 8 ? 2 : 1;
    if (fill) {
      pen.fillStyle = colours.query;
      pen.fillRect(x, y, patch, patch);
    }
    pen.setLineDash(dash ? [3, 3] : []);
    pen.lineWidth = wide + 2;
    pen.strokeStyle = dash ? "#000" : colours.query;
    pen.strokeRect(x - 1, y - 1, patch + 2, patch + 2);
    pen.lineWidth = wide;
    pen.strokeStyle = "#fff";
    pen.strokeRect(x - 0.5, y - 0.5, patch + 1, patch + 1);
    pen.setLineDash([]);
  }
  // `paint` fills `pixels`, a colour for each stripe of each token.
  function draw(query, pinned, fill, paint) {
    if (query < 0) pen.drawImage(plain.canvas, 0, 0, width, height);
    else {
      pen.drawImage(grey.canvas, 0, 0, width, height);
      paint(pixels);
      texturePen.putImageData(image, 0, 0);
      corners.forEach(([x, y], t) => pen.drawImage(texture, 0, t * H, W * stripes, H, x, y, W * patch, H * patch));
    }
    if (patch >= 8) pen.drawImage(lines.canvas, 0, 0, width, height);
    if (query < 0) return;
    if (pinned >= 0 && pinned !== query) outline(pinned, { dash: true });
    outline(query, { fill });
    label(pen, position(query, grid)[0], "#fff", 700);
  }
  return { prepare, draw };
}

const swatch = colour => {
  const square = make("span", { className: "swatch" });
  square.style.background = colour;
  return square;
};
// What the colours mean: the entries of the legend. `strongest` is the element that shows the largest weight.
function legendEntries(view, steps, chosen, colours, ramp, strongest) {
  const entry = (swatch, text) => make("li", {}, swatch, make("span", { textContent: text }));
  const query = swatch(colours.query), [last, before] = lastTwo(steps);
  query.classList.add("query");
  const entries = [entry(query, "the patch that asks")];
  if (view === "one layer")
    for (const { colour, name } of chosen) entries.push(entry(swatch(colour), `may be attended in the ${name} layer`));
  else if (view === "two layers") {
    entries.push(entry(swatch(last.colour), `attended in the last layer (${last.name})`));
    if (last !== before) entries.push(entry(swatch(before.colour), `reached through the layer before (${before.name})`));
    else entries.push(entry(swatch("transparent"), `the layer before is ${before.name} again`));
  } else {
    const bar = swatch(`linear-gradient(to right, ${Array.from({ length: 9 }, (_, i) => {
      const [red, green, blue] = ramp.subarray(i * 31 * 4 + (i === 8 ? 28 : 0));
      return `rgb(${red} ${green} ${blue})`;
    }).join(", ")})`);
    bar.classList.add("ramp");
    entries.push(make("li", {}, make("span", { textContent: "weight 0" }), bar, strongest),
      entry(swatch("#666"), "not in its group"));
  }
  return entries;
}

// ---- rows of learned weights that the kernel keeps

// One request in flight: while it runs the pointer may pass a dozen patches, and only the last of them matters.
function kernelRows(model, grid, changed) {
  const key = (layer, query) => `${query} ${layer}`, rows = new Map();
  let asked = null, timer = 0, unanswered = null;

  function ask(layer, query) {
    if (asked || query < 0) return;
    const queries = neighbourhood(query, grid).filter(token => !rows.has(key(layer, token)));
    if (!queries.length || key(layer, query) === unanswered) return;
    asked = key(layer, queries[0]);
    timer = setTimeout(() => {
      unanswered = asked;
      asked = null;
      changed();
    }, GIVE_UP);
    model.send({ kind: "rows", layer, queries });
  }
  function receive(message, buffers) {
    if (message.kind !== "rows") return;
    const { layer, queries } = message;
    queries.forEach((query, i) => rows.set(key(layer, query), unpackRow(buffers.slice(4 * i, 4 * i + 4))));
    for (const old of rows.keys()) if (rows.size > ROWS_KEPT) rows.delete(old);
    if (rows.has(unanswered)) unanswered = null;
    if (asked === key(layer, queries[0])) {
      asked = null;
      clearTimeout(timer);
    }
    changed(layer, queries);
  }
  return {
    ask, receive,
    get: (layer, query) => rows.get(key(layer, query)),
    late: (layer, query) => unanswered === key(layer, query),
    retry: () => (unanswered = null),
    stop: () => clearTimeout(timer),
  };
}

// ---- the widget

function render({ model, el }) {
  const grid = model.get("grid"), [T, H, W] = grid, tokens = size(grid), geometry = model.get("geometry");
  const { size: [width, height] } = geometry, colours = model.get("colours"), opacity = Math.round(255 * colours.tint);
  const layers = model.get("layers"), ramp = bytes(model.get("ramp"));
  const heat = new Uint32Array(256).map((_, i) => pack(...ramp.subarray(4 * i, 4 * i + 4)));

  let offset = 0;
  const numbers = typed(Int32Array, model.get("groups"));
  const schemes = model.get("schemes").map(({ name, steps }) => ({
    name,
    steps: steps.map(({ name, colour }) => ({
      name, colour, packed: pack(...hexToRgb(colour), opacity), group: numbers.subarray(offset, (offset += tokens)),
    })),
  }));
  const stripes = stripesFor(schemes.map(({ steps }) => steps.length));
  const maps = model.get("weights").map((map, l) => unpackMap(map, layers[l].heads, tokens));

  // ---- what is shown now

  let hover = -1;
  const shown = () => (hover >= 0 ? hover : model.get("pinned"));
  const learned = () => model.get("view") === "learned";
  const scheme = (name = model.get("scheme")) => schemes.find(found => found.name === name);
  const chosenSteps = () => {
    const { steps } = scheme(), one = steps.find(({ name }) => name === model.get("step"));
    return one ? [one] : steps;
  };
  const layer = () => layers.findIndex(({ name }) => name === model.get("layer"));
  const kernel = kernelRows(model, grid, (name, queries) => {
    const here = learned() && name === model.get("layer") && queries.includes(shown());
    if (here) show("row");
    else ask(), tellReader();
  });
  const ask = () => learned() && !maps.length && kernel.ask(model.get("layer"), shown());
  const rowOf = query => (maps.length ? rowOfMap(maps[layer()], query) : kernel.get(model.get("layer"), query));

  function choose(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }
  function chooseScheme(name) {
    const kept = scheme(name).steps.some(step => step.name === model.get("step"));
    choose({ ...(kept ? {} : { step: "" }), scheme: name });
  }
  function chooseLayer(name) {
    const { heads } = layers.find(found => found.name === name);
    choose({ ...(model.get("head") < heads ? {} : { head: -1 }), layer: name });
  }

  // ---- the page around the frames

  const id = Math.random().toString(36).slice(2);
  const control = (name, onchange) => {
    const select = make("select", { onchange: () => onchange(select.value) });
    return { select, label: make("label", {}, make("span", { className: "name", textContent: name }), select) };
  };
  const schemeControl = control("Scheme", chooseScheme);
  const stepControl = control("Layer of the block", step => choose({ step }));
  const layerControl = control("Layer", chooseLayer);
  const headControl = control("Head", head => choose({ head: Number(head) }));
  const radios = VIEWS.map(view => make("input", {
    type: "radio", name: `view-${id}`, value: view, onchange: () => choose({ view }),
    disabled: view === "learned" && !layers.length,
  }));
  const titles = { "one layer": "One layer", "two layers": "Two layers", learned: "Learned weights" };
  const viewControl = make("fieldset", {}, make("legend", { textContent: "View" }), make("div", { className: "choice" },
    ...radios.map(radio => make("label", {}, radio, make("span", { textContent: titles[radio.value] })))));
  const canvas = make("canvas", { tabIndex: 0 });
  const legend = make("ul", { className: "legend" });
  const readout = make("p", { className: "readout", id: `readout-${id}` });
  const keys = make("p", { className: "keys", id: `keys-${id}` });
  keys.innerHTML = "A click pins a patch. In the picture: <kbd>← ↑ ↓ →</kbd> patch, <kbd>PgUp</kbd> <kbd>PgDn</kbd> " +
    "frame, <kbd>S</kbd> scheme, <kbd>V</kbd> view, <kbd>L</kbd> layer, <kbd>H</kbd> head, <kbd>Shift</kbd> the " +
    "other way, <kbd>Esc</kbd> lets go.";
  readout.setAttribute("role", "status");
  readout.setAttribute("aria-live", "polite");
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${T} frames of a clip, ${H} by ${W} patches each`);
  canvas.setAttribute("aria-describedby", `${readout.id} ${keys.id}`);

  const root = make("div", { className: "attention-explorer" },
    make("div", { className: "controls" },
      schemeControl.label, viewControl, stepControl.label, layerControl.label, headControl.label),
    canvas, legend, readout, keys);
  root.style.setProperty("--wide", `${width}px`);
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab reads V, L, H and S as its own commands
  el.append(root);

  const strongest = make("span");
  const fill = ({ select }, options, value) => {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = value;
    select.disabled = options.length < 2;
  };
  function layout() {
    const view = model.get("view"), { name, steps } = scheme(), chosen = chosenSteps();
    for (const radio of radios) radio.checked = radio.value === view;
    stepControl.label.hidden = view !== "one layer";
    layerControl.label.hidden = headControl.label.hidden = !learned();
    if (learned()) fill(schemeControl, [["", model.get("maps_scheme") || "as trained"]], "");
    else fill(schemeControl, schemes.map(({ name }) => [name, name]), name);
    const every = steps.length > 1 ? [["", `all: ${steps.map(({ name }) => name).join(", ")}`]] : [];
    fill(stepControl, [...every, ...steps.map(({ name }) => [name, name])], chosen.length === 1 ? chosen[0].name : "");
    if (layers.length) {
      const { heads } = layers[layer()], mean = heads > 1 ? [["-1", `mean of ${heads}`]] : [["-1", "the only one"]];
      fill(layerControl, layers.map(({ name }) => [name, name]), model.get("layer"));
      const single = Array.from({ length: heads }, (_, head) => [String(head), `head ${head}`]);
      fill(headControl, heads > 1 ? [...mean, ...single] : mean, String(heads > 1 ? model.get("head") : -1));
    }
    legend.replaceChildren(...legendEntries(view, steps, chosen, colours, ramp, strongest));
  }

  // ---- together

  const { prepare, draw } = painter(canvas, grid, geometry, colours, stripes);
  let painted = false, settle = 0, since = 0;

  function paint(pixels) {
    const query = shown(), row = learned() && rowOf(query);
    if (model.get("view") === "one layer") return paintLayers(pixels, chosenSteps(), query, stripes);
    if (model.get("view") === "two layers") return paintTwoLayers(pixels, lastTwo(scheme().steps), query, stripes);
    canvas.dataset.waiting = row ? "0" : "1";
    if (!row) return pixels.fill(0);
    const found = weightsOf(row, model.get("head"));
    paintWeights(pixels, found, heat, stripes);
    strongest.textContent = found.told(found.most);
  }
  function tellReader() {
    const query = shown(), name = model.get("layer"), of = learned() ? model.get("maps_scheme") : undefined;
    const weights = learned() && query >= 0 && {
      name, heads: layers[layer()].heads, head: model.get("head"), row: rowOf(query), late: kernel.late(name, query),
    };
    const text = describe({ query, grid, steps: scheme(of)?.steps, chosen: chosenSteps(), learned: weights });
    if (readout.textContent !== text) readout.textContent = text;
  }
  function show(cause) {
    if (!painted) return;
    const start = performance.now();
    canvas.dataset.waiting = "0";
    strongest.textContent = "";
    draw(shown(), model.get("pinned"), !learned(), paint);
    const milliseconds = performance.now() - start, complete = canvas.dataset.waiting === "0";
    ask();
    tellReader();
    for (const name of ["scheme", "view", "step", "layer", "head", "pinned"]) canvas.dataset[name] = model.get(name);
    canvas.dataset.query = shown();
    root.dispatchEvent(new CustomEvent("explorer-drawn", { detail: { cause, complete, milliseconds, since } }));
    clearTimeout(settle);
    settle = setTimeout(tellKernel, SETTLE);
  }
  function tellKernel() {
    clearTimeout(settle);
    choose({ hover, readout: readout.textContent });
  }
  function point(query, event) {
    if (query === hover) return;
    hover = query;
    since = event.timeStamp;
    kernel.retry();
    show("hover");
  }
  function pin(query, event) {
    since = event.timeStamp;
    kernel.retry();
    model.set("pinned", query);
    show("pin");
    tellKernel();
  }

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) * width) / box.width, y = ((event.clientY - box.top) * height) / box.height;
    return tokenUnder(x, y, grid, geometry);
  }
  canvas.onpointermove = event => point(under(event), event);
  canvas.onpointerleave = event => point(-1, event);
  canvas.onclick = event => {
    const query = under(event);
    if (query >= 0) pin(query === model.get("pinned") ? -1 : query, event);
  };

  function move(event, ...steps) {
    const from = shown();
    hover = -1;
    pin(from < 0 ? middle(grid) : moved(from, steps, grid), event);
  }
  const next = (names, name, by) => names[(names.indexOf(name) + by + names.length) % names.length];
  function key(event) {
    const back = event.shiftKey ? -1 : 1, view = model.get("view");
    const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (arrows) return move(event, ...(event.shiftKey ? [arrows[0] + arrows[1], 0, 0] : [0, ...arrows]));
    switch (event.key.length === 1 ? event.key.toLowerCase() : event.key) {
      case "PageUp": return move(event, -1, 0, 0);
      case "PageDown": return move(event, 1, 0, 0);
      case "Home": return move(event, -T, 0, 0);
      case "End": return move(event, T, 0, 0);
      case "Escape": hover = -1; return pin(-1, event);
      case "Enter": kernel.retry(); return show("again");
      case "s": return learned() || chooseScheme(next(schemes.map(({ name }) => name), model.get("scheme"), back));
      case "v": return choose({ view: next(layers.length ? VIEWS : VIEWS.slice(0, 2), view, back) });
      case "l": {
        if (learned()) return chooseLayer(next(layers.map(({ name }) => name), model.get("layer"), back));
        const { steps } = scheme(), names = steps.length > 1 ? ["", ...steps.map(({ name }) => name)] : [""];
        return view === "one layer" && choose({ step: next(names, names.includes(model.get("step")) ? model.get("step") : "", back) });
      }
      case "h": {
        const { heads } = learned() ? layers[layer()] : { heads: 1 };
        const choices = Array.from({ length: heads + 1 }, (_, i) => i - 1);
        return heads > 1 && choose({ head: next(choices, model.get("head"), back) });
      }
    }
    return "not mine";
  }
  canvas.onkeydown = event => {
    if (event.ctrlKey || event.metaKey || event.altKey || key(event) === "not mine") return;
    event.preventDefault();
    event.stopPropagation();
  };

  const heard = { "msg:custom": kernel.receive };
  for (const name of ["scheme", "view", "step", "layer", "head"])
    heard[`change:${name}`] = () => (kernel.retry(), layout(), show(name));
  heard["change:pinned"] = () => show("pinned");
  heard["change:hover"] = () => {
    if (model.get("hover") !== hover) hover = model.get("hover"), show("hover");
  };
  for (const [event, call] of Object.entries(heard)) model.on(event, call);

  layout();
  createImageBitmap(new Blob([bytes(model.get("sprite"))], { type: "image/jpeg" })).then(picture => {
    prepare(picture);
    painted = true;
    show("first");
    canvas.dataset.painted = "1";
  });
  return () => {
    kernel.stop();
    clearTimeout(settle);
    for (const [event, call] of Object.entries(heard)) model.off(event, call);
  };
}

export default { render };
