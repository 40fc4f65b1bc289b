// What the picture shows, in words: for those who cannot see it, and to be exact for those who can.

const VIEWS = ["one layer", "whole block", "whole network"];

export function placeWords(token, { grid, extra, size: all }) {
  if (token >= size(grid)) {
    const [name, number] = placeOf(token, { grid, extra }, [1, 1, 1]);
    const many = extraCount(extra.find(one => one.name === name));
    return many > 1 ? `${name} ${number}` : name;
  }
  const [t, i, j] = position(token, grid);
  return `time ${t}, row ${i}, column ${j}`;
}
const outOf = (found, tokens) => (found === tokens ? `all ${tokens} tokens` : `${found} of ${tokens} tokens`);
const capital = text => text[0].toUpperCase() + text.slice(1);

// `row`: undefined while the kernel has not answered. `through`: what reachThrough found, in views of several layers;
// `seen`: which part of the clip a unit sees.
export function describe({ query, layer, view, head, row, late, through, first, seen }) {
  if (query === null) return "Point at a patch, or press an arrow key, to see what it takes from the others.";
  if (query < 0) return `No such token takes part in ${layer.name}.`;
  const { queries, keys } = layer, who = placeWords(query, queries);
  const said = [query < size(queries.grid) ? `Patch at ${who}.` : `${capital(who)}.`];
  if (layer.kind === "gradient") said.push(...gradientWords(layer, query, row, late));
  else if (layer.weights) said.push(...weightWords({ layer, view, head, row, late, tokens: view === "one layer" ? keys : first?.inputs }));
  else if (seen !== undefined) said.push(`It sees ${(100 * seen).toFixed(seen < 0.1 ? 1 : 0)} % of the clip through all layers up to ${layer.name}.`);
  else if (through) {
    const many = count(through.reached), where = view === "whole block" ? `all layers of ${layer.block}` : `all layers up to ${layer.name}`;
    const { told = [] } = through, ways = told.map(({ name, last, found }) => `${found} ${last ? `in the last layer (${name})` : `through ${name}`}`);
    said.push(`Through ${where} it can depend on ${outOf(many, through.reached.length)}${ways.length > 1 ? `: ${ways.join(", ")}` : ""}.`);
  } else {
    const counts = layer.parts.map(part => `${outOf(count(rowOf(part, query)), keys.size)} (${part.name})`);
    said.push(`In ${layer.name} it may take from ${counts.join(", ")}.`);
  }
  return said.join(" ");
}

function weightWords({ layer, view, head, row, late, tokens }) {
  const parts = layer.parts.filter(({ marks }) => !marks), heads = parts.reduce((sum, part) => sum + part.heads, 0);
  const which = view !== "one layer" ? `${view === "whole block" ? layer.block : `the network up to ${layer.name}`}, rollout (approximate)`
    : `${layer.name}, ${head ? `head ${head}` : heads > 1 ? `mean of ${heads} heads` : "its head"}`;
  if (!row && late) return [`The kernel did not answer within ${GIVE_UP / 1000} s (is a cell running?). Enter asks again.`];
  if (!row) return [`Waiting for the kernel: weights of ${which} …`];
  const kept = row.filter((_, i) => layer.parts[i]?.marks && view === "one layer"), paying = row.filter(one => !kept.includes(one));
  const { weights, many, sum, uniform, told } = weightsOf(paying, view === "one layer" ? head : 0, tokens.size);
  if (!many) return [`It takes from nobody in ${which}.`];
  const paid = [...new Set(paying.flatMap(({ keys }) => Array.from(keys)))].filter(i => weights[i] !== 0);
  const best = paid.sort((a, b) => Math.abs(weights[b]) - Math.abs(weights[a]) || a - b).slice(0, 3);
  const strongest = best.map(i => `${told(weights[i])} at ${placeWords(i, tokens)}`).join("; ");
  const said = [`Strongest in ${which}: ${strongest}.`];
  if (parts.some(({ signed }) => signed)) said.push(`These are affinities, which may be negative; they add up to ${sum.toFixed(2)}.`);
  else said.push(`It takes from ${outOf(many, tokens.size)}, ${told(uniform)} each if all were equal; they add up to ${sum.toFixed(2)}.`);
  if (kept.length) {
    const { weights } = weightsOf(kept, head, tokens.size), frames = [...weights.keys()].filter(i => weights[i] > 0);
    said.push(`Marked: what it goes on from (${frames.map(i => `time ${position(i, tokens.grid)[0]}`).join(", ")}).`);
  }
  return said;
}

// What a unit of a convolution used of the clip.
function gradientWords({ name, keys, sees }, query, row, late) {
  if (!row && late) return [`The kernel did not answer within ${GIVE_UP_GRADIENT / 1000} s (is a cell running?). Enter asks again.`];
  if (!row) return [`The kernel works out the gradient of this unit of ${name} …`];
  const { weights, many, told } = weightsOf(row, 0, keys.size), share = seenShare(sees, query);
  const sight = `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} % of the clip`;
  if (!many) return [`It sees ${sight} through all layers up to ${name}, but its gradient is zero: no small change of this clip changes it.`];
  const best = Array.from(weights.keys()).filter(i => weights[i] > 0).sort((a, b) => weights[b] - weights[a] || a - b);
  let half = 0, found = 0;
  for (const whole = best.reduce((sum, i) => sum + weights[i], 0); found < whole / 2; half++) found += weights[best[half]];
  const strongest = best.slice(0, 3).map(i => `${told(weights[i])} at ${placeWords(i, keys)}`).join("; ");
  return [
    `In ${name} it used most: ${strongest}.`,
    `It sees ${sight}; its gradient is not zero in ${many} of ${keys.size} places, and half of it lies in ${half}.`,
  ];
}
// Which part of the clip lies within a unit's reach.
export const seenShare = (sees, query) => runsOf(sees, query)
  .map((axis, i) => axis.reduce((sum, [a, b]) => sum + b - a, 0) / sees.keys[i]).reduce((a, b) => a * b, 1);

// Why a layer, among those of its source, has fewer views than others.
export function withoutWords({ kind, views }, layers) {
  if (views.length === VIEWS.length) return "";
  if (kind === "gradient") return "The gradient comes from the clip itself, through the whole network: there is nothing to compose.";
  if (kind === "pooling" && !views.includes("whole network"))
    return "This layer only thins tokens out. Those before it show weights, which are not composed with such a mask, so there is no whole network.";
  if (kind !== "attention")
    return "Convolutions run side by side and have no whole block; their whole network is the part of the clip that a unit sees.";
  if (layers.some(({ parts }) => parts.some(({ signed }) => signed)))
    return "Rollout multiplies shares. Affinities may be negative and need not add up to one, so no block or network is made of them.";
  return "Rollout follows attention from tokens to tokens. Convolutions lie between these layers, so some views are missing.";
}

// What stands beside a source when several are compared.
export function factWords({ name, facts }, layer, learned) {
  const told = many => (many < 1e4 ? `${many}` : many < 1e6 ? `${(many / 1e3).toFixed(1)} k` : many < 1e9 ? `${(many / 1e6).toFixed(1)} M` : `${(many / 1e9).toFixed(1)} G`);
  const counts = layer.kind === "gradient" ? [`${told(layer.queries.size)} units`] : [`${told(layer.keys.size)} tokens`, `${told(layer.pairs)} pairs`];
  return `${name} · ${layer.name}: ${[...counts, ...Object.entries(facts).map(([what, much]) => `${what} ${much}`)].join(", ")}`;
}
