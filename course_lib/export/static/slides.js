// Largest letters first: each slide takes the largest size with which all of it fits. Then the lecture begins, or, with
// ?print-pdf in the address, the handout stays: slides and notes on sheets.
(() => {
  const SIZES = { points: 38, title: 34, quiz: 30, shown: 30 }, SMALLEST = 24, PICTURES = 330; // CSS pixels of 1280 x 720
  const page = document.documentElement;

  function fit(section) {
    const sheet = section.querySelector(".sheet"), pictures = sheet.querySelector(".figures"), tables = sheet.querySelector(".tables");
    const folded = [...sheet.querySelectorAll("details")];
    const fits = () => sheet.scrollHeight <= sheet.clientHeight && sheet.scrollWidth <= sheet.clientWidth
      && !(pictures?.clientHeight < PICTURES);
    const unfolded = one => {
      one.open = true;
      const all = fits();
      one.open = false;
      return all;
    };
    for (const beside of tables ? [false, true] : [false]) {
      tables?.classList.toggle("beside", beside);
      for (let size = SIZES[section.className]; size >= SMALLEST; size -= 1) {
        sheet.style.fontSize = `${size}px`;
        if (folded.length ? folded.every(unfolded) : fits()) return;
      }
    }
  }
  document.querySelectorAll("section").forEach(fit);
  if (/print-pdf/.test(location.search)) return;

  page.classList.remove("handout", "print-pdf"); // the second keeps the sheets from the style that reveal.js has for paper
  // Keys belong to an explorer or a quiz that was reached by Tab. After a click they go on to drive the slides, so that
  // a presenter's remote control is never caught. Only a menu that a click has opened keeps them until it closes: without
  // focus it would close at once.
  let clicked = false;
  const own = element => element?.closest?.(".attention-explorer, details"), menu = element => element?.closest?.("select");
  const open = element => CSS.supports("selector(:open)") && menu(element)?.matches(":open");
  const letGo = element => clicked && own(element) && document.activeElement.blur(); // now: a key may be waiting already
  addEventListener("pointerdown", () => (clicked = true), true);
  addEventListener("keydown", () => {
    const focused = document.activeElement;
    if (open(focused)) return;
    if (menu(focused)) letGo(focused); // closed without a choice
    clicked = false;
  }, true);
  addEventListener("click", ({ target }) => menu(target) || letGo(target));
  addEventListener("change", ({ target }) => letGo(target));
  Reveal.initialize({
    width: 1280, height: 720, margin: 0, minScale: 0.1, maxScale: 8, center: false, transition: "none", hash: true,
    controls: false, slideNumber: "c/t", totalTime: Number(document.querySelector(".reveal").dataset.totalTime),
    keyboardCondition: () => !own(document.activeElement), plugins: [RevealNotes],
  });
  Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Light or dark" }, () => {
    page.dataset.theme = page.dataset.theme === "dark" ? "light" : "dark";
  });
})();
