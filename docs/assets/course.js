// Formulas: arithmatex has put each between \( \) or \[ \]; KaTeX renders it.
for (const element of document.querySelectorAll(".arithmatex")) {
  const tex = element.textContent.trim();
  // Formulas side by side are divided between them, and not in the middle of one.
  const several = tex.slice(2, -2).split("\\qquad");
  const whole = several.length > 1 ? several.map((one) => `{${one}}`).join("\\qquad\\allowbreak") : several[0];
  katex.render(whole, element, {
    displayMode: tex.startsWith("\\["),
    throwOnError: false,
  });
  // A short one stays on its line; in a table it may be what makes a row fit.
  if (tex.length < 24 && !element.closest("table")) element.classList.add("whole");
  // A line never begins with the comma after a formula.
  const after = element.nextSibling;
  const mark = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,:;!?)]+/)?.[0];
  const last = element.querySelector(".katex-html > :last-child");
  if (mark && last) {
    after.deleteData(0, mark.length);
    last.append(Object.assign(document.createElement("span"), { className: "mark", textContent: mark }));
  }
}
// Sessions: what the copy button takes is the input, without prompts and results.
for (const element of document.querySelectorAll(".language-pycon")) {
  element.dataset.copy = element.querySelector("code").textContent
    .split("\n")
    .filter((line) => /^(>>>|\.\.\.)( |$)/.test(line))
    .map((line) => line.slice(4))
    .join("\n");
}
// Where a line of code is wider than the screen, its rest hangs below its beginning,
// unless it is a row of a table. A line becomes a block for that; what is copied is kept.
for (const code of document.querySelectorAll("pre > code")) {
  const block = code.closest(".highlight");
  if (block && !block.closest("[data-copy]")) block.dataset.copy = code.textContent;
  // Pygments ends every span at the end of its line.
  code.replaceChildren(...code.innerHTML.trimEnd().split("\n").map((html) => {
    const line = document.createElement("span");
    line.innerHTML = `${html}\n`;
    const indent = line.textContent.match(/^ *((>>>|\.\.\.) )? */)[0].length;
    const told = code.closest(".language-python, .language-sh") || line.querySelector(".gp");
    const aligned = !told && / {3,}[^\s#]/.test(line.textContent.slice(indent));
    line.className = aligned ? "line aligned" : "line";
    line.style.setProperty("--hang", Math.min(indent, 16) + 2);
    // Neither a prompt nor an indent is ever alone on its line.
    const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    for (let left = indent; left > 0 && texts.nextNode();) {
      const { data } = texts.currentNode;
      texts.currentNode.data = data.slice(0, left).replaceAll(" ", "\u00a0") + data.slice(left);
      left -= data.length;
    }
    return line;
  }));
}
// Who copies by hand gets ordinary spaces.
document.addEventListener("copy", (event) => {
  const text = String(getSelection());
  if (!text.includes("\u00a0") || document.activeElement.matches("input, textarea")) return;
  event.clipboardData.setData("text/plain", text.replaceAll("\u00a0", " "));
  event.preventDefault();
});
// An option such as --resume is one word.
for (const code of document.querySelectorAll(":not(pre) > code")) {
  if (code.children.length) continue;
  code.innerHTML = code.innerHTML.replace(/(^|\s)(--?\w[-\w]*)/g, '$1<span class="whole">$2</span>');
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
