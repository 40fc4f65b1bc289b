// The attention explorer in the browser. Masks arrive as one group number a token and learned weights as one byte
// each, so that everything answers here; only weights too large for the page are asked from the kernel, row by row.

const VIEWS = ["one layer", "two layers", "learned"];
const SETTLE = 60; // milliseconds that the pointer rests before the kernel hears of it
const GIVE_UP = 500; // milliseconds to wait for a row before the next one may be asked
const ROWS_KEPT = 256;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const bytes = data =>
  data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const typed = (Type, data) => new Type(bytes(data).slice().buffer); // slice: a message's buffers may lie unaligned
const hexToRgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const leastCommonMultiple = (a, b) => {
  let multiple = a;
  while (multiple % b) multiple += a;
  return multiple;
};
const pack = (red, green, blue, opacity) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;

function render({ model, el }) {
  const [T, H, W] = model.get("grid"), N = T * H * W;
  const { patch, size: [width, height], corners } = model.get("geometry");
  const colours = model.get("colours"), opacity = Math.round(255 * colours.tint);
  const layers = model.get("layers");

  let offset = 0;
  const numbers = typed(Int32Array, model.get("groups"));
  const schemes = model.get("schemes").map(({ name, steps }) => ({
    name,
    steps: steps.map(({ name, colour }) => ({
      name, colour, packed: pack(...hexToRgb(colour), opacity), group: numbers.subarray(offset, (offset += N)),
    })),
  }));
  // Where several layers meet in a patch it is striped; with this many stripes every layer gets an equal share.
  const stripes = schemes.reduce((many, { steps }) => leastCommonMultiple(many, steps.length), 2);

  // ---- what is shown now

  let hover = -1;
  const shown = () => (hover >= 0 ? hover : model.get("pinned"));
  const scheme = (name = model.get("scheme")) => schemes.find(found => found.name === name);
  const chosenSteps = () => {
    const { steps } = scheme(), one = steps.find(({ name }) => name === model.get("step"));
    return one ? [one] : steps;
  };
  const layer = () => layers.findIndex(({ name }) => name === model.get("layer"));

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

  // ---- who attends to whom

  const count = mask => mask.reduce((sum, bit) => sum + bit, 0);
  function attended({ group }, query) {
    const mask = new Uint8Array(N), number = group[query];
    for (let i = 0; i < N; i++) mask[i] = group[i] === number;
    return mask;
  }
  const lastTwo = ({ steps }) => [steps.at(-1), steps.at(-2) ?? steps.at(-1)];
  function attendedTwice([last, before], query) {
    const direct = attended(last, query), open = new Uint8Array(N), mask = new Uint8Array(N);
    for (let i = 0; i < N; i++) if (direct[i]) open[before.group[i]] = 1;
    for (let i = 0; i < N; i++) mask[i] = open[before.group[i]];
    return { direct, mask };
  }

  // ---- learned weights: in the page, or a row at a time from the kernel

  const rowKey = (name, query) => `${query} ${name}`;
  const rows = new Map();
  let asked = null, timer = 0, unanswered = null;

  const inPage = model.get("weights").map((map, l) => {
    const members = typed(Int32Array, map.members), place = new Int32Array(N);
    members.forEach((token, i) => (place[token] = i));
    const levels = bytes(map.levels), { heads } = layers[l];
    const [scales, sums] = [map.scales, map.sums].map(data => typed(Float32Array, data));
    return { members, place, levels, scales, sums, keys: levels.length / heads / N };
  });
  function rowInPage(l, query) {
    const { members, place, levels, scales, sums, keys } = inPage[l], { heads } = layers[l];
    const group = Math.floor(place[query] / keys), position = place[query] % keys;
    const at = Array.from({ length: heads }, (_, head) => (group * heads + head) * keys + position);
    return {
      members: members.subarray(group * keys, (group + 1) * keys),
      levels: at.map(row => levels.subarray(row * keys, (row + 1) * keys)),
      scales: at.map(row => scales[row]),
      sums: at.map(row => sums[row]),
    };
  }
  function learnedRow(query) {
    const l = layer();
    if (inPage.length) return rowInPage(l, query);
    return rows.get(rowKey(layers[l].name, query));
  }
  function weightsOf({ members, levels, scales, sums }) {
    const head = model.get("head"), heads = head < 0 ? levels.map((_, i) => i) : [head];
    const weights = new Float32Array(members.length);
    let sum = 0;
    for (const one of heads) {
      const scale = scales[one] / heads.length, level = levels[one];
      for (let i = 0; i < weights.length; i++) weights[i] += scale * level[i];
      sum += sums[one] / heads.length;
    }
    const most = Math.max(...weights), decimals = most > 0 ? Math.floor(-Math.log10(most / 255)) : 2;
    return { members, weights, sum, most, told: weight => weight.toFixed(decimals) }; // no digit finer than a level
  }
  // The pointer goes next to a patch beside this one, so their rows come along.
  function around(query) {
    const first = query - (query % (H * W)), i = Math.floor((query - first) / W), j = query % W, found = [query];
    for (let row = Math.max(0, i - 1); row <= Math.min(H - 1, i + 1); row++)
      for (let column = Math.max(0, j - 1); column <= Math.min(W - 1, j + 1); column++)
        if (row !== i || column !== j) found.push(first + row * W + column);
    return found;
  }
  // One request in flight: while it runs the pointer may pass a dozen patches, and only the last of them matters.
  function ask() {
    const query = shown(), name = model.get("layer");
    if (asked || query < 0 || model.get("view") !== "learned" || inPage.length) return;
    const queries = around(query).filter(token => !rows.has(rowKey(name, token)));
    if (!queries.length || rowKey(name, query) === unanswered) return;
    asked = rowKey(name, queries[0]);
    timer = setTimeout(() => {
      unanswered = asked;
      asked = null;
      ask();
      describe();
    }, GIVE_UP);
    model.send({ kind: "rows", layer: name, queries });
  }
  function receive(message, buffers) {
    if (message.kind !== "rows") return;
    const { layer, queries } = message, missing = !rows.has(rowKey(layer, shown()));
    queries.forEach((query, i) => {
      const [members, levels, scales, sums] = buffers.slice(4 * i, 4 * i + 4);
      const keys = members.byteLength / 4, all = bytes(levels).slice();
      rows.set(rowKey(layer, query), {
        members: typed(Int32Array, members),
        levels: Array.from({ length: all.length / keys }, (_, head) => all.subarray(head * keys, (head + 1) * keys)),
        scales: typed(Float32Array, scales),
        sums: typed(Float32Array, sums),
      });
    });
    for (const key of rows.keys()) if (rows.size > ROWS_KEPT) rows.delete(key);
    if (rows.has(unanswered)) unanswered = null;
    if (asked === rowKey(layer, queries[0])) {
      asked = null;
      clearTimeout(timer);
    }
    if (missing && model.get("view") === "learned" && layer === model.get("layer") && rows.has(rowKey(layer, shown()))) show("row");
    else ask();
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

  const fill = ({ select }, options, value) => {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = value;
    select.disabled = options.length < 2;
  };
  function layout() {
    const view = model.get("view"), { name, steps } = scheme(), learned = view === "learned";
    for (const radio of radios) radio.checked = radio.value === view;
    stepControl.label.hidden = view !== "one layer";
    layerControl.label.hidden = headControl.label.hidden = !learned;
    if (learned) fill(schemeControl, [["", model.get("maps_scheme") || "as trained"]], "");
    else fill(schemeControl, schemes.map(({ name }) => [name, name]), name);
    const every = steps.length > 1 ? [["", `all: ${steps.map(({ name }) => name).join(", ")}`]] : [];
    const one = chosenSteps().length === 1 ? chosenSteps()[0].name : "";
    fill(stepControl, [...every, ...steps.map(({ name }) => [name, name])], one);
    if (layers.length) {
      const { heads } = layers[layer()], mean = heads > 1 ? [["-1", `mean of ${heads}`]] : [["-1", "the only one"]];
      fill(layerControl, layers.map(({ name }) => [name, name]), model.get("layer"));
      const single = Array.from({ length: heads }, (_, head) => [String(head), `head ${head}`]);
      fill(headControl, heads > 1 ? [...mean, ...single] : mean, String(heads > 1 ? model.get("head") : -1));
    }
    const entry = (swatch, text) => make("li", {}, swatch, make("span", { textContent: text }));
    const swatch = colour => {
      const square = make("span", { className: "swatch" });
      square.style.background = colour;
      return square;
    };
    const query = swatch(colours.query);
    query.classList.add("query");
    const entries = [entry(query, "the patch that asks")];
    if (learned) {
      const bar = swatch(`linear-gradient(to right, ${Array.from({ length: 9 }, (_, i) => {
        const [red, green, blue] = ramp.subarray(i * 31 * 4 + (i === 8 ? 28 : 0));
        return `rgb(${red} ${green} ${blue})`;
      }).join(", ")})`);
      bar.classList.add("ramp");
      const item = make("li", {}, make("span", { textContent: "weight 0" }), bar, strongest);
      entries.push(item, entry(swatch("#666"), "not in its group"));
    } else if (view === "two layers") {
      const [last, before] = lastTwo(scheme());
      entries.push(entry(swatch(last.colour), `attended in the last layer (${last.name})`));
      if (last !== before) entries.push(entry(swatch(before.colour), `reached through the layer before (${before.name})`));
      else entries.push(entry(swatch("transparent"), `the layer before is ${before.name} again`));
    } else {
      for (const { colour, name } of chosenSteps()) entries.push(entry(swatch(colour), `may be attended in the ${name} layer`));
    }
    legend.replaceChildren(...entries);
  }

  // ---- drawing

  const scale = Math.min(2, Math.max(1, Math.ceil(window.devicePixelRatio || 1)));
  const sheet = () => {
    const canvas = new OffscreenCanvas(width * scale, height * scale), pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    return { canvas, pen };
  };
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.imageSmoothingEnabled = false;

  const ramp = bytes(model.get("ramp")), heat = new Uint32Array(256).map((_, i) => pack(...ramp.subarray(4 * i, 4 * i + 4)));
  const strongest = make("span");
  const plain = sheet(), grey = sheet(), lines = sheet();
  // All frames, one below the other: a token is one pixel high and a pixel for every stripe wide.
  const texture = new OffscreenCanvas(W * stripes, T * H), texturePen = texture.getContext("2d");
  const image = texturePen.createImageData(W * stripes, T * H), pixels = new Uint32Array(image.data.buffer);

  function label(pen, t, ink, weight) {
    const [x, y] = corners[t];
    pen.fillStyle = colours.stage;
    pen.fillRect(x, y - 20, W * patch, 18);
    pen.fillStyle = ink;
    pen.font = `${weight} 13px system-ui, sans-serif`;
    pen.fillText(`t = ${t}`, x, y - 6);
  }
  function prepare(picture) {
    const high = picture.height / T, fine = picture.width >= W * patch * scale;
    plain.pen.fillStyle = colours.stage;
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

  function paintMasks(query) {
    const steps = chosenSteps(), inside = new Uint32Array(steps.length);
    for (let i = 0; i < N; i++) {
      let many = 0;
      for (const { group, packed } of steps) if (group[i] === group[query]) inside[many++] = packed;
      for (let k = 0; k < stripes; k++) pixels[i * stripes + k] = inside[Math.floor((k * many) / stripes)] * (many > 0);
    }
  }
  function paintTwoLayers(query) {
    const [last, before] = lastTwo(scheme()), { direct, mask } = attendedTwice([last, before], query);
    for (let i = 0; i < N; i++)
      pixels.fill(direct[i] ? last.packed : mask[i] ? before.packed : 0, i * stripes, (i + 1) * stripes);
  }
  function paintLearned(query) {
    const row = learnedRow(query);
    canvas.dataset.waiting = row ? "0" : "1";
    pixels.fill(0);
    if (!row) return;
    const { members, weights, most, told } = weightsOf(row);
    members.forEach((token, i) => {
      const level = most > 0 ? Math.round((255 * weights[i]) / most) : 0;
      pixels.fill(heat[level], token * stripes, (token + 1) * stripes);
    });
    strongest.textContent = told(most);
  }

  function outline(token, dash) {
    const [x, y] = corners[Math.floor(token / (H * W))], i = Math.floor(token / W) % H, j = token % W;
    const box = [x + j * patch, y + i * patch, patch, patch], wide = patch >= 8 ? 2 : 1;
    if (!dash && model.get("view") !== "learned") {
      pen.fillStyle = colours.query;
      pen.fillRect(...box);
    }
    pen.setLineDash(dash ? [3, 3] : []);
    pen.lineWidth = wide + 2;
    pen.strokeStyle = dash ? "#000" : colours.query;
    pen.strokeRect(box[0] - 1, box[1] - 1, patch + 2, patch + 2);
    pen.lineWidth = wide;
    pen.strokeStyle = "#fff";
    pen.strokeRect(box[0] - 0.5, box[1] - 0.5, patch + 1, patch + 1);
    pen.setLineDash([]);
  }
  function draw() {
    const query = shown(), view = model.get("view"), pinned = model.get("pinned");
    canvas.dataset.waiting = "0";
    strongest.textContent = "";
    if (query < 0) pen.drawImage(plain.canvas, 0, 0, width, height);
    else {
      pen.drawImage(grey.canvas, 0, 0, width, height);
      ({ "one layer": paintMasks, "two layers": paintTwoLayers, learned: paintLearned })[view](query);
      texturePen.putImageData(image, 0, 0);
      corners.forEach(([x, y], t) => pen.drawImage(texture, 0, t * H, W * stripes, H, x, y, W * patch, H * patch));
    }
    if (patch >= 8) pen.drawImage(lines.canvas, 0, 0, width, height);
    if (query < 0) return;
    if (pinned >= 0 && pinned !== query) outline(pinned, true);
    outline(query, false);
    label(pen, Math.floor(query / (H * W)), "#fff", 700);
  }

  // ---- in words

  const place = token => `time ${Math.floor(token / (H * W))}, row ${Math.floor(token / W) % H}, column ${token % W}`;
  const outOf = count => (count === N ? `all ${N} tokens` : `${count} of ${N} tokens`);
  function words(query) {
    if (query < 0) return "Point at a patch, or press an arrow key, to see which patches attention joins it to.";
    const learned = model.get("view") === "learned", said = [`Patch at ${place(query)}.`];
    if (learned) {
      const row = learnedRow(query), { name, heads } = layers[layer()], head = model.get("head");
      const which = `${name}, ${head < 0 ? (heads > 1 ? `mean of ${heads} heads` : "its head") : `head ${head}`}`;
      if (row) {
        const { members, weights, sum, told } = weightsOf(row);
        const best = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]).slice(0, 3);
        said.push(`Strongest in ${which}: ${best.map(i => `${told(weights[i])} at ${place(members[i])}`).join("; ")}.`,
          `In this layer it may attend ${outOf(weights.length)}; their weights add up to ${sum.toFixed(2)}.`);
      } else if (unanswered === rowKey(name, query)) {
        said.push(`The kernel did not answer within ${GIVE_UP / 1000} s (is a cell running?). Enter asks again.`);
      } else said.push(`Waiting for the kernel: weights of ${which} …`);
    }
    const found = learned ? scheme(model.get("maps_scheme")) : scheme();
    if (!found) return said.join(" ");
    if (!learned) {
      const counts = chosenSteps().map(step => `${outOf(count(attended(step, query)))} (${step.name})`);
      said.push(`In one layer it may attend: ${counts.join(", ")}.`);
    }
    const [last, before] = lastTwo(found), twice = count(attendedTwice([last, before], query).mask);
    const order = last === before ? `${last.name} twice` : `${last.name}, and before it ${before.name}`;
    said.push(`Through two layers in a row (${order}) it can depend on ${outOf(twice)}.`);
    return said.join(" ");
  }
  function describe() {
    const text = words(shown());
    if (readout.textContent !== text) readout.textContent = text;
  }

  // ---- together

  let painted = false, settle = 0, since = 0;
  function show(cause) {
    if (!painted) return;
    const start = performance.now();
    draw();
    const milliseconds = performance.now() - start, complete = canvas.dataset.waiting === "0";
    ask();
    describe();
    for (const name of ["scheme", "view", "step", "layer", "head", "pinned"]) canvas.dataset[name] = model.get(name);
    canvas.dataset.query = shown();
    root.dispatchEvent(new CustomEvent("explorer-drawn", { detail: { cause, complete, milliseconds, since } }));
    clearTimeout(settle);
    settle = setTimeout(tell, SETTLE);
  }
  function tell() {
    clearTimeout(settle);
    choose({ hover, readout: readout.textContent });
  }
  function point(query, event) {
    if (query === hover) return;
    hover = query;
    since = event.timeStamp;
    unanswered = null;
    show("hover");
  }
  function pin(query, event) {
    since = event.timeStamp;
    unanswered = null;
    model.set("pinned", query);
    show("pin");
    tell();
  }

  function hit(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) * width) / box.width, y = ((event.clientY - box.top) * height) / box.height;
    const t = corners.findIndex(([left, top]) => x >= left && x < left + W * patch && y >= top && y < top + H * patch);
    if (t < 0) return -1;
    return (t * H + Math.floor((y - corners[t][1]) / patch)) * W + Math.floor((x - corners[t][0]) / patch);
  }
  canvas.onpointermove = event => point(hit(event), event);
  canvas.onpointerleave = event => point(-1, event);
  canvas.onclick = event => {
    const query = hit(event);
    if (query >= 0) pin(query === model.get("pinned") ? -1 : query, event);
  };

  const clamp = (value, length) => Math.min(length - 1, Math.max(0, value));
  function move(event, frames, rows, columns) {
    const from = shown();
    hover = -1;
    if (from < 0) return pin(((T >> 1) * H + (H >> 1)) * W + (W >> 1), event);
    const t = clamp(Math.floor(from / (H * W)) + frames, T), i = clamp((Math.floor(from / W) % H) + rows, H);
    pin((t * H + i) * W + clamp((from % W) + columns, W), event);
  }
  const next = (names, name, by) => names[(names.indexOf(name) + by + names.length) % names.length];
  function key(event) {
    const back = event.shiftKey ? -1 : 1, view = model.get("view"), learned = view === "learned";
    const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (arrows) return move(event, ...(event.shiftKey ? [arrows[0] + arrows[1], 0, 0] : [0, ...arrows]));
    switch (event.key.length === 1 ? event.key.toLowerCase() : event.key) {
      case "PageUp": return move(event, -1, 0, 0);
      case "PageDown": return move(event, 1, 0, 0);
      case "Home": return move(event, -T, 0, 0);
      case "End": return move(event, T, 0, 0);
      case "Escape": hover = -1; return pin(-1, event);
      case "Enter": unanswered = null; return show("again");
      case "s": return learned || chooseScheme(next(schemes.map(({ name }) => name), model.get("scheme"), back));
      case "v": return choose({ view: next(layers.length ? VIEWS : VIEWS.slice(0, 2), view, back) });
      case "l": {
        if (learned) return chooseLayer(next(layers.map(({ name }) => name), model.get("layer"), back));
        const { steps } = scheme(), names = steps.length > 1 ? ["", ...steps.map(({ name }) => name)] : [""];
        return view === "one layer" && choose({ step: next(names, names.includes(model.get("step")) ? model.get("step") : "", back) });
      }
      case "h": {
        const { heads } = learned ? layers[layer()] : { heads: 1 };
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

  const heard = { "msg:custom": receive };
  for (const name of ["scheme", "view", "step", "layer", "head"])
    heard[`change:${name}`] = () => (unanswered = null, layout(), show(name));
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
    clearTimeout(timer);
    clearTimeout(settle);
    for (const [event, call] of Object.entries(heard)) model.off(event, call);
  };
}

export default { render };
