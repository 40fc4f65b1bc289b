// Brings the explorers of a page to life, each when it comes near the window: until then, and without this script, its
// still stands there. The model stands in for the notebook's: the same get, set, on and off, and no kernel behind it.
(() => {
  const source = EXPLORER_SCRIPT;
  const revive = (_, value) => (value?.base64 === undefined ? value : new DataView(bytes(value.base64).buffer));
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const unpacked = async text => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text(), revive);
  };
  const modelOf = state => {
    const listeners = {};
    return {
      get: name => state[name],
      set(name, value) {
        if (state[name] === value) return;
        state[name] = value;
        for (const call of [...(listeners[`change:${name}`] ?? [])]) call();
      },
      on: (event, call) => (listeners[event] ??= []).push(call),
      off: (event, call) => (listeners[event] = (listeners[event] ?? []).filter(other => other !== call)),
      save_changes() {},
      send() {},
    };
  };
  let loading = null;
  const explorer = () => (loading ??= import(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))));

  async function wake(box) {
    const state = await unpacked(box.querySelector("script").textContent), { default: player } = await explorer();
    const most = state.width, model = modelOf(state), still = box.querySelector(".still"), place = document.createElement("div");
    let stop = null, wide = 0;
    const draw = () => {
      const { wide: room, high } = box.dataset;
      const now = room ? Number(room) : Math.min(most, box.clientWidth - 10); // its padding
      if (now < 100 || now === wide) return; // folded away, or as it is
      wide = state.width = now;
      state.height = high ? Number(high) : now < 600 ? 800 : undefined; // a narrow window may be long: larger patches to touch
      stop?.();
      place.replaceChildren();
      stop = player.render({ model, el: place });
    };
    still.replaceWith(place);
    new ResizeObserver(draw).observe(box);
    draw();
  }
  const near = new IntersectionObserver(entries => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting) near.unobserve(target), wake(target);
  }, { rootMargin: "800px" });
  const begin = () => document.querySelectorAll(".live-explorer").forEach(box => near.observe(box));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
