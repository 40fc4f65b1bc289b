// The widget: what is shown, the page around the frames, pointer and keys. space.js, relations.js, words.js and
// paint.js come before it in one script.

const SETTLE = 60; // milliseconds that the pointer rests before the kernel hears of it
const SETTLE_ASKING = 250; // the same while rows come from the kernel: two messages would wait for each other

const swatch = (colour, ...classes) => {
  const square = make("span", { className: ["swatch", ...classes].join(" ") });
  square.style.background = colour;
  return square;
};
const choices = layers => layers.filter(({ offered }) => offered.length); // a page without a kernel may lack some
const entry = (square, text) => make("li", {}, square, make("span", { textContent: text }));

function render({ model, el }) {
  const clip = model.get("clip"), width = model.get("width"), colours = model.get("colours");
  const opacity = Math.round(255 * colours.tint), ramp = bytes(model.get("ramp"));
  const heat = new Uint32Array(256).map((_, i) => pack(...ramp.subarray(4 * i, 4 * i + 4)));
  const negative = pack(...hexToRgb(colours.negative), opacity), veil = pack(...ramp.subarray(0, 3), 70);
  const tables = model.get("tables"), whole = model.get("rows");
  const sources = model.get("sources").map((source, s) => ({
    ...source, number: s,
    layers: source.layers.map((layer, number) => ({
      ...layer, number, offered: layer.views.filter(view => !layer.absent.includes(view)), parts: layer.parts.map(part => ({ ...unpackPart(part, tables), packed: pack(...hexToRgb(part.colour), opacity) })),
      ofKeys: unpackPart(layer.ofKeys, tables), ofQueries: unpackPart(layer.ofQueries, tables), sees: unpackPart(layer.sees, tables),
    })),
  })).filter(({ layers }) => choices(layers).length);

  // ---- what is shown now

  let hover = [];
  const shown = () => (hover.length ? hover : model.get("pinned"));
  const source = () => sources.find(({ name }) => name === model.get("source"));
  const layer = () => source().layers.find(({ name }) => name === model.get("layer"));
  const headsOf = ({ parts, weights }) => (weights ? parts.filter(({ marks }) => !marks).reduce((sum, { heads }) => sum + heads, 0) : 0);
  const firstOf = layers => choices(layers).find(({ kind }) => kind === "attention") ?? choices(layers)[0];
  const namedOr = (layers, name) => choices(layers).find(one => one.name === name) ?? firstOf(layers);
  const kernel = kernelRows(model, () => show("row"));

  // Every board of the picture: a source, its layer, and the tokens that answer there.
  function boards() {
    const names = model.get("compared").length ? model.get("compared") : [model.get("source")];
    return names.map(name => {
      const here = sources.find(one => one.name === name);
      const its = name === model.get("source") ? layer() : namedOr(here.layers, model.get("layer"));
      const view = its.offered.includes(model.get("view")) ? model.get("view") : its.offered[0], chain = its.chains[view];
      const layers = chain && here.layers.slice(chain.first, chain.last + 1).filter(({ kind }) => kind !== "convolution");
      const asking = layers ? layers.at(-1).queries : its.queries;
      const sees = view === "whole network" && !layers && its.sees;
      const keys = layers ? layers[0].inputs : sees ? { grid: sees.keys, extra: [], size: sees.size } : its.keys;
      return { source: here, layer: its, view, layers, asking, keys, sees, where: { source: here.number, layer: its.number, view } };
    });
  }
  const stored = ({ where }) => whole[`${where.source}/${where.layer}/${where.view}`];
  function rowFor(board, query) {
    const rows = stored(board), parts = board.view === "one layer" ? board.layer.parts : [{ signed: false }];
    if (rows) return rowFrom(rows, query, parts);
    const row = kernel.get(board.where, query);
    return row && unpackRow(row, parts);
  }
  // What a board tells of one place: masks, the way through several layers, or a row of weights.
  function told(board, place) {
    const query = place.length ? tokenOf(place, board.asking, clip) : null, { layer, view, layers, sees } = board;
    const found = { query, layer, view, head: model.get("head"), first: layers?.[0] };
    if (query === null || query < 0) return found;
    if (layer.weights) return { ...found, row: rowFor(board, query), late: kernel.late(board.where, query) };
    if (sees) return { ...found, runs: runsOf(sees, query), seen: seenShare(sees, query) };
    return layers ? { ...found, through: reachThrough(layers, query) } : found;
  }

  function choose(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }
  function chooseSource(name) {
    const { layers } = sources.find(one => one.name === name);
    chooseLayer(namedOr(layers, model.get("layer")).name, name);
  }
  function chooseLayer(name, of = model.get("source")) {
    const found = sources.find(one => one.name === of).layers.find(one => one.name === name), now = model.get("view");
    const view = found.offered.includes(now) ? now : found.offered[0];
    choose({ head: Math.min(model.get("head"), headsOf(found)), view, source: of, layer: name });
  }

  // ---- the page around the frames

  const id = Math.random().toString(36).slice(2);
  const control = (name, onchange) => {
    const select = make("select", { onchange: () => onchange(select.value), ariaLabel: name });
    return { select, label: make("label", {}, make("span", { className: "name", textContent: name }), select) };
  };
  const sourceControl = control("Scheme or network", chooseSource), layerControl = control("Layer", name => chooseLayer(name));
  const headControl = control("Head", head => choose({ head: Number(head) }));
  const radios = VIEWS.map(view => make("input", { type: "radio", name: `view-${id}`, value: view, onchange: () => choose({ view }) }));
  const viewControl = make("fieldset", {}, make("legend", { textContent: "View" }), make("div", { className: "choice" },
    ...radios.map(radio => make("label", {}, radio, make("span", { textContent: radio.value[0].toUpperCase() + radio.value.slice(1) })))));
  const compare = make("input", { type: "checkbox", onchange: () => choose({ compared: compare.checked ? sources.map(({ name }) => name) : [] }) });
  const compareControl = make("label", { className: "check" }, compare, make("span", { textContent: "Compare all" }));
  const hide = make("button", { type: "button", textContent: "Hide what it takes most from", onclick: askToHide });
  const canvas = make("canvas", { tabIndex: 0 });
  const legend = make("ul", { className: "legend" });
  const readout = make("p", { className: "readout", id: `readout-${id}` }), hidden = make("p", { className: "hidden-words" });
  const without = make("p", { className: "keys" });
  const keys = make("p", { className: "keys", id: `keys-${id}` });
  keys.innerHTML = "A click pins a patch or a class token. In the picture: <kbd>← ↑ ↓ →</kbd> patch, <kbd>PgUp</kbd> <kbd>PgDn</kbd> " +
    "frame, <kbd>S</kbd> scheme or network, <kbd>V</kbd> view, <kbd>L</kbd> layer, <kbd>H</kbd> head, <kbd>E</kbd> class tokens, " +
    "<kbd>Shift</kbd> the other way, <kbd>Esc</kbd> lets go.";
  for (const words of [readout, hidden]) words.setAttribute("role", "status"), words.setAttribute("aria-live", "polite");
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${clip[0]} frames of a clip`);
  canvas.setAttribute("aria-describedby", `${readout.id} ${keys.id}`);
  const root = make("div", { className: "attention-explorer" },
    make("div", { className: "controls" }, sourceControl.label, layerControl.label, viewControl, headControl.label, compareControl, hide),
    canvas, legend, readout, hidden, without, keys);
  root.style.setProperty("--wide", `${width}px`);
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab reads V, L, H and S as its own commands
  el.append(root);

  const fill = ({ select }, options, value) => {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = value;
    select.disabled = options.length < 2;
  };
  function controls() {
    const here = layer(), heads = headsOf(here);
    for (const radio of radios) radio.checked = radio.value === model.get("view"), radio.disabled = !here.offered.includes(radio.value);
    fill(sourceControl, sources.map(({ name }) => [name, name]), model.get("source"));
    fill(layerControl, choices(source().layers).map(({ name }) => [name, name]), here.name);
    const single = Array.from({ length: heads }, (_, head) => [String(head + 1), `head ${head + 1}`]);
    fill(headControl, heads > 1 ? [["0", `mean of ${heads}`], ...single] : [["0", "the only one"]], String(model.get("head")));
    headControl.label.hidden = !here.weights || here.kind === "gradient" || model.get("view") !== "one layer";
    compareControl.hidden = sources.length < 2;
    compare.checked = model.get("compared").length > 0;
    hide.hidden = !model.get("hides") || !here.weights;
    hidden.textContent = "";
    without.textContent = [withoutWords(here, source().layers), model.get("lacks")].filter(Boolean).join(" ");
    without.hidden = !without.textContent;
  }
  const strongest = make("span"), uniform = make("span");
  function legends() {
    const [board] = boards(), { layer, layers, view, sees } = board, entries = [entry(swatch(colours.query, "query"), "the one who asks")];
    if (layer.weights) {
      const bar = swatch(`linear-gradient(to right, ${Array.from({ length: 9 }, (_, i) => {
        const [red, green, blue] = ramp.subarray(i * 31 * 4 + (i === 8 ? 28 : 0));
        return `rgb(${red} ${green} ${blue})`;
      }).join(", ")})`, "ramp");
      if (layer.kind === "gradient") entries.push(entry(swatch("transparent", "frame"), "all that it sees"));
      if (layer.parts.some(({ signed }) => signed)) entries.push(entry(swatch(colours.negative), "affinity below zero"));
      else entries.push(entry(swatch("rgb(94 82 107)"), "up to an equal share"));
      entries.push(make("li", {}, uniform, bar, strongest), entry(swatch("#666"), layer.kind === "gradient" ? "no gradient" : "not joined"));
      if (layer.parts.some(({ marks }) => marks) && view === "one layer") entries.push(entry(swatch("#fff", "dot"), "goes on from here"));
    } else if (sees) entries.push(entry(swatch(layer.parts[0].colour), `what it sees of the clip through ${layer.name}`));
    else if (layers) {
      const same = layers.every(one => one.inputs.size === layers.at(-1).queries.size), colour = ({ parts }) => parts[0].colour;
      if (!same) entries.push(entry(swatch(colour(layers[0])), `can change it, through ${layers.length} layers`));
      else for (const { name, layer, last } of byName(layers))
        entries.push(entry(swatch(colour(layer)), last ? `joined in the last layer (${name})` : `reached through ${name}`));
    } else for (const { colour, name } of layer.parts) entries.push(entry(swatch(colour), `joined in ${layer.name} (${name})`));
    legend.replaceChildren(...entries);
  }

  // ---- the picture

  const scale = Math.min(2, Math.max(1, Math.ceil(window.devicePixelRatio || 1)));
  const pen = canvas.getContext("2d");
  let picture = null, sheets = [], drawnFor = "", settle = 0, since = 0;

  // New sheets where the tokens that answer have changed: panels of another grid, other boards.
  function arrange() {
    const now = boards(), key = JSON.stringify(now.map(({ keys }) => [keys.grid, keys.extra]));
    if (key === drawnFor) return now;
    drawnFor = key;
    const many = now.length, caption = many > 1 ? LABEL : 0;
    let top = 0;
    const layouts = now.map(({ keys }) => {
      const layout = layoutOf(keys, clip, width, many > 1 ? Math.max(170, 760 / many) : model.get("height") ?? HEIGHT, top + caption);
      top += layout.size[1] + caption;
      return layout;
    });
    const wide = many > 1 ? width : Math.max(...layouts.map(({ size }) => size[0])); // room for captions
    Object.assign(canvas, { width: wide * scale, height: top * scale });
    canvas.style.width = `${wide}px`;
    pen.scale(scale, scale);
    pen.imageSmoothingEnabled = false;
    pen.fillStyle = colours.background;
    pen.fillRect(0, 0, wide, top);
    sheets = layouts.map(layout => sheet(layout, clip, picture, colours, scale, wide));
    canvas.layouts = layouts; // for whoever wants to know where patches lie
    return now;
  }
  function paintBoard(board, here, words) {
    const { layer, keys, view, layers } = board, { query, row, through, runs, head } = words;
    here.base(pen, query !== null && query >= 0);
    if (query === null || query < 0) return here.grille(pen);
    const masks = !layer.weights && !layers && !runs, stripes = masks ? stripesFor(layer.parts.length) : 1;
    const many = size(keys.grid) > 60_000;
    if (runs) here.runs(pen, runs, board.sees.keys, tint(layer.parts[0].colour));
    else if (masks && many && layer.parts.length === 1 && layer.parts[0].kind === "axes")
      here.runs(pen, runsOf(layer.parts[0], query), layer.parts[0].keys, tint(layer.parts[0].colour));
    else {
      const pixels = here.prepare(keys.size, stripes);
      if (masks) paintMasks(pixels, layer.parts.map(part => ({ mask: rowOf(part, query), packed: part.packed })), stripes);
      else if (through) paintSteps(pixels, through.steps, [...layers].reverse().map(({ parts }) => parts[0].packed), stripes);
      else if (row) {
        const one = view === "one layer", paying = row.filter((_, i) => !(one && layer.parts[i].marks));
        const found = weightsOf(paying, one ? head : 0, keys.size), signed = one && layer.parts.some(part => part.signed);
        paintWeights(pixels, found, { heat, veil, negative, signed }, stripes);
        strongest.textContent = found.told(found.most);
        uniform.textContent = signed ? "0" : `equal share ${found.told(found.uniform)}`;
      } else {
        pixels.fill(0);
        canvas.dataset.waiting = "1";
      }
      here.lay(pen);
      const kept = row && view === "one layer" && row.filter((_, i) => layer.parts[i].marks);
      if (kept?.length) {
        const { weights } = weightsOf(kept, head, keys.size);
        here.marks(pen, [...weights.keys()].filter(i => weights[i] > 0));
      }
    }
    here.grille(pen);
    if (layer.kind === "gradient") here.frame(pen, runsOf(layer.sees, query), layer.sees.keys);
    const pinned = model.get("pinned"), pin = pinned.length ? tokenOf(pinned, board.asking, clip) : -1;
    if (pin >= 0 && pin !== query) for (const box of outlines(pin, board.asking, here.layout)) here.outline(pen, box, true);
    for (const box of outlines(query, board.asking, here.layout)) here.outline(pen, box, false);
  }
  const tint = hex => `rgb(${hexToRgb(hex).join(" ")} / ${colours.tint})`;

  function show(cause) {
    if (!picture) return;
    const start = performance.now(), place = shown(), now = arrange();
    canvas.dataset.waiting = "0";
    strongest.textContent = uniform.textContent = "";
    const words = now.map(board => told(board, place));
    now.forEach((board, i) => {
      paintBoard(board, sheets[i], words[i]);
      if (now.length > 1) {
        pen.fillStyle = colours.background;
        pen.fillRect(0, sheets[i].layout.top - LABEL, width, LABEL);
        pen.fillStyle = "#e6edf3";
        pen.font = "600 13px system-ui, sans-serif";
        pen.fillText(factWords(board.source, board.layer), MARGIN, sheets[i].layout.top - 4, width - 2 * MARGIN);
      }
    });
    const milliseconds = performance.now() - start, complete = canvas.dataset.waiting === "0";
    const asking = now.map((board, i) => board.layer.weights && words[i].query !== null && words[i].query >= 0 && !stored(board));
    const missing = asking.findIndex((asks, i) => asks && !words[i].row), ask = i =>
      kernel.ask(now[i].where, words[i].query, now[i].asking, now[i].layer.kind === "gradient");
    if (missing >= 0) ask(missing);
    else asking.forEach((asks, i) => asks && ask(i)); // those around it
    tellReader(now, words);
    for (const name of ["source", "layer", "view", "head"]) canvas.dataset[name] = model.get(name);
    canvas.dataset.pinned = model.get("pinned").join(" ");
    canvas.dataset.query = words[0].query ?? -1;
    root.dispatchEvent(new CustomEvent("explorer-drawn", { detail: { cause, complete, milliseconds, since } }));
    clearTimeout(settle);
    settle = setTimeout(tellKernel, now.some(board => board.layer.weights && !stored(board)) ? SETTLE_ASKING : SETTLE);
  }
  function tellReader(now, words) {
    const text = now.map((board, i) => (now.length > 1 ? `${board.source.name}: ` : "") + describe(words[i])).join(" ");
    if (readout.textContent !== text) readout.textContent = text;
  }
  function tellKernel() {
    clearTimeout(settle);
    choose({ hover, readout: readout.textContent });
  }
  function askToHide() {
    const [board] = boards(), query = tokenOf(shown(), board.asking, clip);
    if (query < 0) return;
    hidden.textContent = "Hiding …";
    model.send({ kind: "hide", ...board.where, queries: [query] });
  }
  function receive(message, buffers) {
    if (message.kind === "hidden") hidden.textContent = message.text;
    else kernel.receive(message, buffers);
  }

  // ---- pointer and keys

  function point(place, event) {
    const [board] = boards(), same = tokenOf(place, board.asking, clip) === tokenOf(hover, board.asking, clip);
    if (samePlace(place, hover) || (same && place.length && hover.length)) return;
    hover = place;
    since = event.timeStamp;
    kernel.retry();
    show("hover");
  }
  function pin(place, event) {
    since = event.timeStamp;
    kernel.retry();
    model.set("pinned", place);
    hidden.textContent = "";
    show("pin");
    if (canvas.dataset.waiting === "0") tellKernel(); // else once the row is there
  }
  function under(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) * canvas.width) / scale / box.width, y = ((event.clientY - box.top) * canvas.height) / scale / box.height;
    for (const { layout } of sheets) {
      const place = placeUnder(x, y, layout, clip);
      if (place.length) return place;
    }
    return [];
  }
  // The middle of the token under a point: what the kernel and other layers are told.
  function centred(place) {
    const [board] = boards(), token = tokenOf(place, board.asking, clip);
    return token < 0 || typeof place[0] === "string" ? place : placeOf(token, board.asking, clip);
  }
  canvas.onpointermove = event => point(under(event), event);
  canvas.onpointerleave = event => point([], event);
  canvas.onclick = event => {
    const place = under(event), [board] = boards();
    if (!place.length) return;
    const same = model.get("pinned").length && tokenOf(place, board.asking, clip) === tokenOf(model.get("pinned"), board.asking, clip);
    pin(same ? [] : centred(place), event);
  };

  function move(event, ...steps) {
    const from = shown(), [board] = boards(), token = tokenOf(from, board.asking, clip);
    hover = [];
    pin(token < 0 ? middle(clip) : placeOf(moved(token, steps, board.asking), board.asking, clip), event);
  }
  // From the patches to the first class token, to the next kind, and back to the middle.
  function nextExtra(event, by) {
    const [{ asking: { extra } }] = boards(), names = extra.map(({ name }) => name), at = shown();
    const index = typeof at[0] === "string" ? names.indexOf(at[0]) : by > 0 ? -1 : names.length;
    hover = [];
    pin(names[index + by] ? [names[index + by], 0] : middle(clip), event);
  }
  const next = (names, name, by) => names[(names.indexOf(name) + by + names.length) % names.length];
  function key(event) {
    const back = event.shiftKey ? -1 : 1, steps = boards()[0].asking.grid[0];
    const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (arrows) return move(event, ...(event.shiftKey ? [arrows[0] + arrows[1], 0, 0] : [0, ...arrows]));
    switch (event.key.length === 1 ? event.key.toLowerCase() : event.key) {
      case "PageUp": return move(event, -1, 0, 0);
      case "PageDown": return move(event, 1, 0, 0);
      case "Home": return move(event, -steps, 0, 0);
      case "End": return move(event, steps, 0, 0);
      case "Escape": hover = []; return pin([], event);
      case "Enter": kernel.retry(); return show("again");
      case "e": return nextExtra(event, back);
      case "s": return chooseSource(next(sources.map(({ name }) => name), model.get("source"), back));
      case "v": return choose({ view: next(layer().offered, model.get("view"), back) });
      case "l": return chooseLayer(next(choices(source().layers).map(({ name }) => name), layer().name, back));
      case "h": {
        const heads = headsOf(layer()), choices = Array.from({ length: heads + 1 }, (_, i) => i);
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

  // ---- together

  let changed = false;
  const update = name => { // values that belong together come one after another: draw when the last is there
    if (changed) return;
    changed = true;
    queueMicrotask(() => {
      changed = false;
      if (!layer()) return;
      kernel.retry();
      controls();
      legends();
      show(name);
    });
  };
  const heard = { "msg:custom": receive };
  for (const name of ["source", "layer", "view", "head", "compared"]) heard[`change:${name}`] = () => update(name);
  heard["change:pinned"] = () => show("pinned");
  heard["change:hover"] = () => {
    if (!samePlace(model.get("hover"), hover)) hover = model.get("hover"), show("hover");
  };
  for (const [event, call] of Object.entries(heard)) model.on(event, call);

  controls();
  legends();
  createImageBitmap(new Blob([bytes(model.get("sprite"))], { type: "image/jpeg" })).then(found => {
    picture = found;
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
