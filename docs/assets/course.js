// Formulas: arithmatex has put each between \( \) or \[ \]; KaTeX renders it.
for (const element of document.querySelectorAll(".arithmatex")) {
  const tex = element.textContent.trim();
  katex.render(tex.slice(2, -2), element, {
    displayMode: tex.startsWith("\\["),
    throwOnError: false,
  });
}
// Sessions: what the copy button takes is the input, without prompts and results.
for (const element of document.querySelectorAll(".language-pycon")) {
  element.dataset.copy = element.querySelector("code").textContent
    .split("\n")
    .filter((line) => /^(>>>|\.\.\.)( |$)/.test(line))
    .map((line) => line.slice(4))
    .join("\n");
}
// The search is a dialog, and a dialog needs a name.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
// Widgets: their scripts load on the pages that have one. What the page shows without
// scripts stays until then.
{
  const found = [...document.querySelectorAll("[data-widget]")].map((w) => w.dataset.widget);
  const base = new URL("widgets/", document.currentScript.src);
  for (const name of found.length ? ["core", ...found.map((f) => `data-${f}`), "widgets"] : []) {
    const script = document.createElement("script");
    script.src = new URL(`${name}.js`, base);
    script.async = false; // in this order
    document.head.append(script);
  }
}
