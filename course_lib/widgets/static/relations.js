// Who takes from whom. A mask part is { kind: "group" | "axes" | "bits", tables, ... }; all kinds give the row of one
// query and what many queries reach together. Weights are rows of bytes, from the page or from the kernel.

const EVERY = -1, NONE = -2; // in place of a group number: joined to all who have one, joined to nobody

export const bytes = data =>
  data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const typed = (Type, data) => new Type(bytes(data).slice().buffer); // slice: a message's buffers may lie unaligned

// A part as it came, with its tables in place of their numbers.
export function unpackPart(part, tables) {
  if (!part || part.kind === "weights") return part;
  const Type = part.kind === "group" ? Int32Array : Uint8Array;
  return { ...part, tables: part.tables.map(number => (tables[number] instanceof Type ? tables[number] : typed(Type, tables[number]))) };
}

export const count = mask => {
  let found = 0;
  for (let i = 0; i < mask.length; i++) found += mask[i];
  return found;
};

// The tokens that `query` may take from: its row of the mask.
export function rowOf(part, query) {
  const asking = new Uint8Array(query + 1);
  asking[query] = 1;
  return reached(part, asking);
}

// The tokens that one of those who ask may take from: the union of their rows.
export function reached(part, asking) {
  const mask = new Uint8Array(part.size);
  if (part.kind === "group") return reachedGroups(part.tables, asking, mask);
  if (part.kind === "axes") return reachedAxes(part, asking, mask);
  const [packed] = part.tables, wide = Math.ceil(part.size / 8), row = new Uint8Array(wide);
  asking.forEach((asks, query) => {
    if (asks) for (let i = 0; i < wide; i++) row[i] |= packed[query * wide + i];
  });
  for (let key = 0; key < mask.length; key++) mask[key] = (row[key >> 3] >> (key & 7)) & 1;
  return mask;
}

function reachedGroups([queries, keys], asking, mask) {
  const open = new Set();
  for (let query = 0; query < asking.length; query++) if (asking[query] && queries[query] !== NONE) open.add(queries[query]);
  if (!open.size) return mask;
  const [only] = open, all = open.has(EVERY), one = open.size === 1;
  for (let key = 0; key < mask.length; key++) {
    const group = keys[key];
    mask[key] = group !== NONE && (all || group === EVERY || (one ? group === only : open.has(group)));
  }
  return mask;
}

// Axis by axis: [asking in t, h, w] -> [key in t, h, w]. Extra tokens keep to themselves.
function reachedAxes({ tables, queries, keys, size: all }, asking, mask) {
  let now = asking.subarray(0, size(queries)), shape = [...queries];
  for (const axis of [0, 1, 2]) {
    const outer = shape.slice(0, axis).reduce((a, b) => a * b, 1), inner = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const from = shape[axis], to = keys[axis], next = new Uint8Array(outer * to * inner), table = tables[axis];
    for (let o = 0; o < outer; o++) for (let q = 0; q < from; q++) for (let i = 0; i < inner; i++)
      if (now[(o * from + q) * inner + i])
        for (let k = 0; k < to; k++) if (table[q * to + k]) next[(o * to + k) * inner + i] = 1;
    now = next;
    shape[axis] = to;
  }
  mask.set(now);
  const first = size(keys), before = size(queries);
  for (let extra = 0; first + extra < all; extra++) mask[first + extra] = asking[before + extra] ?? 0;
  return mask;
}

// The runs of ones along each axis for one query: what is drawn as rectangles where keys are single pixels.
export function runsOf({ tables, queries, keys }, query) {
  return position(query, queries).map((at, axis) => {
    const length = keys[axis], row = tables[axis].subarray(at * length, (at + 1) * length), runs = [];
    for (let i = 0; i < length; i++) if (row[i]) (row[i - 1] ? runs.at(-1) : runs[runs.push([i, i]) - 1])[1] = i + 1;
    return runs;
  });
}

// What a layer can take from the tokens that enter it, by any part, by pooled keys, and as what it was before.
export function enters(layer, asking) {
  const found = new Uint8Array(layer.keys.size);
  for (const part of layer.parts) reached(part, asking).forEach((bit, key) => (found[key] |= bit));
  const before = layer.ofKeys ? reached(layer.ofKeys, found) : found;
  if (layer.ofQueries) reached(layer.ofQueries, asking).forEach((bit, token) => (before[token] |= bit));
  else if (layer.kind === "attention" && layer.queries.size === layer.keys.size) asking.forEach((bit, token) => (before[token] |= bit));
  return before;
}

// Layers of one name are told together, the last first: `last` where it is no other than the last layer.
export const byName = layers => [...new Map([...layers].reverse().map(layer => [layer.parts[0].name, layer]))]
  .map(([name, layer]) => ({ name, layer, last: layer === layers.at(-1) }));

// Several layers in a row, the last first. Where all have the same tokens, each token is told by how many layers it
// lies back (`steps`: 1 for the last), and `told` counts them by name; otherwise there is the whole way alone.
export function reachThrough(layers, query) {
  const last = layers.at(-1);
  let asking = new Uint8Array(last.queries.size);
  asking[query] = 1;
  const same = layers.every(layer => layer.inputs.size === last.queries.size), steps = new Uint8Array(layers[0].inputs.size);
  [...layers].reverse().forEach((layer, back) => {
    asking = enters(layer, asking);
    if (same) asking.forEach((bit, token) => (steps[token] ||= bit * (back + 1)));
  });
  if (!same) steps.set(asking.map(bit => bit * layers.length));
  const counts = new Uint32Array(layers.length + 1);
  for (const step of steps) counts[step]++;
  const under = name => layers.reduce((sum, layer, i) => sum + (layer.parts[0].name === name ? counts[layers.length - i] : 0), 0);
  const told = same ? byName(layers).map(({ name, last }) => ({ name, last, found: under(name) })) : [];
  return { reached: asking, steps, told };
}

// ---- rows of weights

// One query: for every part { keys, levels (head by head), scales, sums }; see rows.py.
export function unpackRow(data, parts) {
  const all = bytes(data).slice(), words = new DataView(all.buffer);
  let at = 0;
  return parts.map(({ signed }) => {
    const [many, heads, runs] = [0, 4, 8].map(word => words.getInt32(at + word, true)), begin = at + 12;
    const keys = keysOf(new Int32Array(all.buffer, begin, 2 * runs), many);
    const scales = new Float32Array(all.buffer, begin + 8 * runs, heads);
    const sums = new Float32Array(all.buffer, begin + 8 * runs + 4 * heads, heads);
    const first = begin + 8 * (runs + heads), Level = signed ? Int8Array : Uint8Array;
    const levels = Array.from({ length: heads }, (_, head) => new Level(all.buffer, first + head * many, many));
    at = first + heads * many;
    at += (4 - (at % 4)) % 4;
    return { keys, levels, scales, sums };
  });
}

// [first, how many follow each other, first, how many, ...] -> every one of them.
function keysOf(runs, many) {
  const keys = new Int32Array(many);
  for (let run = 0, at = 0; run < runs.length; run += 2)
    for (let i = 0; i < runs[run + 1]; i++) keys[at++] = runs[run] + i;
  return keys;
}

// The same from all rows of a layer.
export function rowFrom({ begin, rows }, query, parts) {
  const starts = begin instanceof Int32Array ? begin : typed(Int32Array, begin);
  return unpackRow(bytes(rows).subarray(starts[query], starts[query + 1]), parts);
}

// Weights of one head (from 1, through all parts), or (0) the mean of all, for each of `size` keys. `told` writes a
// weight with no digit finer than a level; `uniform` is the equal share of those who may be taken from.
export function weightsOf(row, head, size) {
  const every = row.flatMap(({ levels }, part) => levels.map((_, one) => [part, one]));
  const heads = head ? [every[Math.min(head, every.length) - 1]] : every;
  const weights = new Float32Array(size), may = new Uint8Array(size);
  let sum = 0, most = 0, best = -1;
  for (const [part, one] of heads) {
    const { keys, levels, scales, sums } = row[part], scale = scales[one] / heads.length, level = levels[one];
    for (let i = 0; i < keys.length; i++) weights[keys[i]] += scale * level[i], may[keys[i]] = 1;
    sum += sums[one] / heads.length;
  }
  for (let i = 0; i < size; i++) if (Math.abs(weights[i]) > most) most = Math.abs(weights[(best = i)]);
  const many = count(may), decimals = most > 0 ? Math.max(0, Math.floor(-Math.log10(most / 255))) : 2;
  return { weights, may, many, sum, most, best, uniform: many ? 1 / many : 0, told: weight => weight.toFixed(decimals) };
}

// ---- rows that the kernel keeps

const GIVE_UP = 500; // milliseconds to wait for a row before the next one may be asked
const GIVE_UP_GRADIENT = 20_000; // the same where a row costs a pass through a network
const ROWS_KEPT = 256;

// One request in flight: while it runs the pointer may pass a dozen patches, and only the last of them matters.
export function kernelRows(model, changed) {
  const key = (where, query) => `${query} ${where.source}/${where.layer}/${where.view}`, rows = new Map();
  let asked = null, timer = 0, unanswered = null;

  // With the rows around it, unless each costs a pass through the network.
  function ask(where, query, tokens, costly = false) {
    if (asked || query < 0) return;
    const queries = (costly ? [query] : neighbourhood(query, tokens)).filter(token => !rows.has(key(where, token)));
    if (!queries.length || key(where, query) === unanswered) return;
    asked = key(where, queries[0]);
    timer = setTimeout(giveUp, costly ? GIVE_UP_GRADIENT : GIVE_UP);
    model.send({ kind: "rows", ...where, queries });
  }
  function giveUp() {
    clearTimeout(timer);
    unanswered = asked;
    asked = null;
    changed();
  }
  function receive(message, buffers) {
    if (message.kind === "refused" && asked) return giveUp();
    if (message.kind !== "rows") return;
    const { queries } = message;
    queries.forEach((query, i) => rows.set(key(message, query), bytes(buffers[i]).slice()));
    for (const old of rows.keys()) if (rows.size > ROWS_KEPT) rows.delete(old);
    if (rows.has(unanswered)) unanswered = null;
    if (asked === key(message, queries[0])) {
      asked = null;
      clearTimeout(timer);
    }
    changed(message);
  }
  return {
    ask, receive,
    get: (where, query) => rows.get(key(where, query)),
    late: (where, query) => unanswered === key(where, query),
    retry: () => (unanswered = null),
    stop: () => clearTimeout(timer),
  };
}
